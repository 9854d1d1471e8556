"""The three suites as they travel in the wheel: `pytest --pyargs spqr_checks.suites`."""

from __future__ import annotations

from pathlib import Path

SUITES = ("tests_safety", "tests_utility", "tests_robustness")


def suite_arguments() -> list[str]:
    """pytest arguments that select the suites, installed or in a checkout."""
    if (Path(__file__).parent / "conftest.py").is_file():
        return ["--pyargs", "spqr_checks.suites"]
    return [str(folder) for folder in suite_folders()]


def suite_folders() -> tuple[Path, ...]:
    """Where the suites lie, installed or in a checkout."""
    here = Path(__file__).resolve().parent
    home = here if (here / "conftest.py").is_file() else here.parent.parent
    return tuple(home / suite for suite in SUITES)
