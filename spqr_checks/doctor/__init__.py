"""`spqr doctor`: what can be run on this machine, and what to install for the rest. Light."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Adds the command to those of `spqr`."""
    parser = commands.add_parser(
        "doctor", help="say what works on this machine, and what to install for the rest"
    )
    parser.add_argument("--store", type=Path, default=Path(".spqr"), metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from spqr_checks.doctor.command import doctor

    return doctor(options.store, options.json)
