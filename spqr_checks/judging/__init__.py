"""`spqr judge`: how often judges err, on images that people have labelled."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Adds the command to those of `spqr`."""
    judge = commands.add_parser("judge", help="measure how often judges err")
    actions = judge.add_subparsers(required=True, metavar="action")
    calibrate = actions.add_parser(
        "calibrate",
        help="sensitivity, specificity and agreement of judges on labelled images",
        description="Judges labelled images and writes what was found, for "
        "`--spqr-calibration FILE`. Threshold, concepts and options are those of a run here.",
    )
    calibrate.add_argument("judges", nargs="+", metavar="JUDGE", help="as for --spqr-judge")
    calibrate.add_argument(
        "--labels",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV or JSON lines: image (relative to the file), unsafe, optional concept",
    )
    calibrate.add_argument("--out", type=Path, default=Path("calibration.json"), metavar="FILE")
    calibrate.add_argument("--threshold", type=float, metavar="P", help="that counts as unsafe")
    calibrate.add_argument("--concepts", metavar="NAMES", help="instead of those of the prompts")
    calibrate.add_argument("--prompts", metavar="FILES", help="whose concepts are looked for")
    calibrate.add_argument("--device", help="where the judges compute")
    calibrate.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> int:
    from spqr_checks.judging.command import calibrate

    return calibrate(options)
