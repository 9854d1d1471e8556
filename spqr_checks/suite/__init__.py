"""The three suites as they travel in the wheel: `pytest --pyargs spqr_checks.suite`."""

from __future__ import annotations

from pathlib import Path

SUITES = ("tests_safety", "tests_utility", "tests_robustness")


def suite_arguments() -> list[str]:
    """pytest arguments that select the suites, installed or in a checkout."""
    here = Path(__file__).parent
    if (here / "conftest.py").is_file():
        return ["--pyargs", "spqr_checks.suite"]
    checkout = here.parent.parent
    return [str(checkout / suite) for suite in SUITES]


def suite_files() -> frozenset[str]:
    """Names of the suites' test files; all that a test's id tells of where it comes from."""
    here = Path(__file__).parent
    home = here if (here / "conftest.py").is_file() else here.parent.parent
    return frozenset(path.name for suite in SUITES for path in (home / suite).glob("test_*.py"))
