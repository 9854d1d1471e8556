"""`spqr check`: all that is wrong with a run, before it; nothing is drawn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from spqr_checks.cli.arguments import SettingsParser, say
from spqr_checks.pytest_plugin.options import given


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds none: every setting of a run is one, and they are read by a parser of their own."""
    parser.set_defaults(command=lambda options: check(options.rest))


def check(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
        UserError: everything that is wrong, each with where it was said.
    """
    parser = SettingsParser(
        "spqr check",
        "Says all that `spqr run` with the same options would refuse before its first image. Draws "
        "and writes nothing.",
        "Exit code: 0, or 4 where something is wrong.",
    )
    parser.add_argument("--alluredir", type=Path, metavar="DIR", help="as of the run")
    parser.add_settings("the")
    options = parser.parse_args(arguments)
    from spqr_checks.preflight import preflight
    from spqr_checks.reports.text import plural
    from spqr_checks.scoring.gate import too_few_seeds
    from spqr_checks.settings import load_settings

    settings = load_settings(Path.cwd(), given(vars(options).get))
    session = preflight(settings, options.alluredir)
    cells = plural(len(session.run.matrix.cells), "cell")
    say(f"nothing is wrong: a run measures {cells}; `spqr estimate` says how long that takes")
    for closed in too_few_seeds(session.run.matrix, settings.min_tuning_seeds):
        say(f"the gate stays closed whatever is measured: {closed}")
    return 0
