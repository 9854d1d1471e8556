"""`spqr doctor`: what can be run on this machine and under these settings; else what to do."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spqr_checks.doctor.examination import Diagnosis, diagnose
from spqr_checks.doctor.machine import lines
from spqr_checks.reports.text import NOTHING, encodable

NOT_WORKING = 3
"""Exit code where the default path does not work."""
_WIDE = 240
"""Columns of a table at most."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    said = "that of the settings if not given"
    parser.add_argument("--store", default="", metavar="DIR", help=said)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    said = "leave out packages and choices that are in order"
    parser.add_argument("--brief", action="store_true", help=said)
    parser.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0 if `spqr run` would begin in this folder, else 3. What is optional decides nothing.
    """
    found = diagnose(options.store)
    if options.json:
        print(json.dumps(asdict(found) | {"works": found.works}, indent=1))
    else:
        _show(found, options.brief)
    return 0 if found.works else NOT_WORKING


def _show(found: Diagnosis, brief: bool) -> None:
    # a command that is folded within its column cannot be copied; a terminal folds lines itself
    console = Console(soft_wrap=True, highlight=False, width=_WIDE)

    def told(text: str, style: str = "") -> Text:
        # no markup: extras stand in square brackets
        return Text(encodable(text, sys.stdout.encoding or "utf-8"), style)

    def say(text: str, style: str = "") -> None:
        console.print(told(text, style))

    packages = [
        (p.name, p.version or NOTHING, p.needed_by, p.problem)
        for p in found.packages
        if p.problem or not brief
    ]
    choices = [
        (c.kind, c.name, "yes" if c.usable else "no", c.remedy)
        for c in found.choices
        if not (c.usable and brief)
    ]
    tables = (
        (("package", "version", "for", "problem"), packages),
        (("choice", "name", "usable", "otherwise"), choices),
    )
    for headings, rows in tables:
        if not rows:
            continue
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*map(told, row))
        console.print(table)
        console.print()
    for line in lines(found.machine):
        say(line)
    for versions in found.versions:
        say(f"versions: {versions}", "yellow")
    for problem in found.problems:
        say(f"problem: {problem}", "bold red")
    for reason in found.refused:
        say(f"settings: {reason}", "bold red")
    if found.works:
        say("the default path works: try `spqr run`", "bold green")
    elif found.problems:
        say("the default path does not work", "bold red")
    else:
        say("a run under these settings would not begin", "bold red")
