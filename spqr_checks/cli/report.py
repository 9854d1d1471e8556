"""`spqr report`: the reports of a scorecard, written again."""

from __future__ import annotations

import argparse
from pathlib import Path

from spqr_checks.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("scorecard", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.set_defaults(command=report)


def report(options: argparse.Namespace) -> int:
    """Runs the command. Raises UserError for what is no scorecard."""
    from spqr_checks.reports import write_all
    from spqr_checks.scoring.serialize import from_json

    try:
        text = options.scorecard.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{options.scorecard}: {error.strerror}") from None
    write_all(from_json(text), options.out)
    print(options.out)
    return 0
