"""Switches the plugin on for the suites: in this checkout, and as part of the wheel."""

# in the wheel this file is spqr_checks/suites/conftest.py and the fixtures lie beside it
_HERE = f"{__package__}." if __package__ else ""

pytest_plugins = ["spqr_checks.pytest_plugin.plugin", f"{_HERE}fixtures"]
