"""What several commands read alike: the settings of a run, and names separated by commas."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from spqr_checks.cli.parser import Parser
from spqr_checks.errors import UserError
from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.reports.text import encodable, lines

if TYPE_CHECKING:
    from spqr_checks.settings import Settings

SHOWN = 5
"""Items of a long list that are named."""


class SettingsParser(Parser):
    """Reads every setting of a run.

    Args:
        prog: ``spqr COMMAND``.
        said: description of the command.
        epilog: its exit codes.
    """

    def __init__(self, prog: str, said: str, epilog: str) -> None:
        super().__init__(prog, description=said, epilog=epilog, allow_abbrev=False)

    def add_settings(self, whose: str, instead: Mapping[str, str] | None = None) -> None:
        """Adds them in a group, also under their short names if ``instead`` is given.

        Args:
            instead: what to say of settings that the command itself sets; these stay long.
        """
        group = self.add_argument_group(f"settings of {whose} run, see `spqr run --help`")
        for option in OPTIONS:
            text = (instead or {}).get(option.field, option.help).replace("%", "%%")
            short = [] if instead is None or option.field in instead else [option.short]
            flags = [option.flag, *short]
            group.add_argument(*flags, dest=option.dest, metavar=option.metavar, help=text)


def settings_of(options: argparse.Namespace, fields: Mapping[str, str]) -> Settings:
    """The settings here, under what a command was told.

    Args:
        fields: options of the command and the settings that they stand for.

    Raises:
        UserError: for a mistake in the settings.
    """
    from spqr_checks.settings import load_settings

    told = {field: getattr(options, name) for name, field in fields.items()}
    told = {field: value for field, value in told.items() if value is not None}
    return load_settings(Path.cwd(), told, measures=False)


def assigned(preset: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Options with ``a.b=value`` put into them; values are JSON, else text."""
    merged = json.loads(json.dumps(preset))
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not (name and equals):
            raise UserError(f"--set {assignment!r}: write OPTION=VALUE, as in --set steps=200")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        *parents, leaf = name.split(".")
        table = merged
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise UserError(f"--set {assignment!r}: {parent!r} has no options of its own")
        table[leaf] = value
    return dict(merged)


def say(text: object, file: TextIO | None = None) -> None:
    """Prints text from anywhere: it does nothing to a terminal, and every terminal can show it."""
    out = sys.stdout if file is None else file
    shown = encodable(lines(str(text)), getattr(out, "encoding", None) or "utf-8")
    print(shown, file=out, flush=True)


def names(text: str) -> list[str]:
    """``a, b`` as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def first(values: Sequence[object]) -> str:
    """The first of them, separated by commas, and whether there are more."""
    return ", ".join(map(str, values[:SHOWN])) + (", …" if len(values) > SHOWN else "")
