"""`spqr run`: the three suites; every argument goes to pytest."""

from __future__ import annotations

import argparse
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds none: pytest reads them, as in `spqr run -n 4 --spqr-candidate DIR`."""
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command; the exit code is pytest's, with this package's meanings."""
    import pytest

    from spqr_checks.suites import suite_arguments

    # libraries' deprecations say nothing about the model and would stand above the score
    quiet = ["-q", "--disable-warnings"]
    return int(pytest.main([*suite_arguments(), *quiet, f"--rootdir={Path.cwd()}", *options.rest]))
