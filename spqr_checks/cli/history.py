"""`spqr history`: scorecards of releases in a plain folder, in order."""

from __future__ import annotations

import argparse
from pathlib import Path

_PAGE = "history.html"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's actions."""
    actions = parser.add_subparsers(required=True, metavar="action")
    said = "keep a run's scorecard as the latest release"
    adding = actions.add_parser("add", help=said, description=said)
    said = "scorecard.json, or the folder that it is in (default: spqr-report)"
    adding.add_argument("scorecard", nargs="?", type=Path, default=Path("spqr-report"), help=said)
    said = "of the release; names are in order, digits as numbers: 2026-11, v1.9, v1.10"
    adding.add_argument("--name", required=True, metavar="NAME", help=said)
    adding.set_defaults(command=_add)
    said = "show SPQR and axes over releases, and since when cells are red"
    showing = actions.add_parser("show", help=said, description=said)
    said = f"also write a page with plots (default: {_PAGE} in the folder)"
    showing.add_argument("--out", type=Path, metavar="FILE", help=said)
    said = "Allure's results of the latest run: gets trends, and each cell's past"
    showing.add_argument("--alluredir", type=Path, metavar="DIR", help=said)
    showing.set_defaults(command=_show)
    for action in (adding, showing):
        said = "of NAME.json or NAME/scorecard.json (default: releases)"
        action.add_argument(
            "--folder", type=Path, default=Path("releases"), metavar="DIR", help=said
        )


def _add(options: argparse.Namespace) -> int:
    from spqr_checks.cli.arguments import say
    from spqr_checks.reports.history.folder import add
    from spqr_checks.reports.json_file import read_scorecard
    from spqr_checks.user_files import path_of

    say(add(path_of(options.folder), options.name, read_scorecard(options.scorecard)))
    return 0


def _show(options: argparse.Namespace) -> int:
    from rich.console import Console

    from spqr_checks.reports.history import page
    from spqr_checks.reports.history.folder import read
    from spqr_checks.reports.terminal import show_history
    from spqr_checks.user_files import path_of

    releases = read(path_of(options.folder))
    out = options.out or options.folder / _PAGE
    page.write(releases, out)
    if options.alluredir is not None:
        from spqr_checks.reports.allure_files import write_history

        write_history(options.alluredir, releases)
    show_history(releases, Console(highlight=False), out)
    return 0
