"""Switches the plugin on for the suites: in this checkout, and as part of the wheel."""

# in the wheel this file is spqr_checks/suite/conftest.py and the fixtures lie beside it
_HERE = f"{__package__}." if __package__ else ""

pytest_plugins = ["spqr_checks.plugin", f"{_HERE}fixtures"]
