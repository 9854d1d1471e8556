"""`spqr leaderboard`: runs the suites for several candidates and ranks them."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds the command to those of `spqr`; its arguments are read by itself, see `command`."""
    parser = commands.add_parser(
        "leaderboard",
        help="run the suites for several candidates and rank them",
        add_help=False,
    )
    parser.set_defaults(command=_command, reads_rest=True)


def _command(options: argparse.Namespace) -> int:
    from spqr_checks.leaderboard.command import leaderboard

    return leaderboard(options.rest)
