"""`spqr doctor`: what can be run on this machine, and what to install for the rest."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spqr_checks.doctor.examination import diagnose
from spqr_checks.doctor.findings import Diagnosis
from spqr_checks.doctor.machine import lines
from spqr_checks.reports.text import NOTHING, encodable

NOT_WORKING = 3
"""Exit code where the default path does not work."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--store", type=Path, default=Path(".spqr"), metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0 if a run of the embedded world would work, else 3. What is optional decides nothing.
    """
    found = diagnose(options.store)
    if options.json:
        print(json.dumps(asdict(found) | {"works": found.works}, indent=1))
    else:
        _show(found)
    return 0 if found.works else NOT_WORKING


def _show(found: Diagnosis) -> None:
    console = Console(soft_wrap=True, highlight=False)

    def told(text: str, style: str = "") -> Text:
        # no markup: extras stand in square brackets
        return Text(encodable(text, sys.stdout.encoding or "utf-8"), style)

    def say(text: str, style: str = "") -> None:
        console.print(told(text, style))

    console.print(_packages(found, told))
    console.print()
    console.print(_choices(found, told))
    console.print()
    for line in lines(found.machine):
        say(line)
    for versions in found.versions:
        say(f"versions: {versions}", "yellow")
    for problem in found.problems:
        say(f"problem: {problem}", "bold red")
    if found.works:
        say("the default path works: try `spqr run`", "bold green")
    else:
        say("the default path does not work", "bold red")


def _packages(found: Diagnosis, told: Callable[[str], Text]) -> Table:
    table = _table("package", "version", "for", "problem")
    for one in found.packages:
        table.add_row(*map(told, (one.name, one.version or NOTHING, one.needed_by, one.problem)))
    return table


def _choices(found: Diagnosis, told: Callable[[str], Text]) -> Table:
    table = _table("choice", "name", "usable", "otherwise")
    for one in found.choices:
        table.add_row(*map(told, (one.kind, one.name, "yes" if one.usable else "no", one.remedy)))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
