"""docs/reference.md, from the settings' model and the commands' own help.

python benchmarks/reference.py docs/reference.md
"""

from __future__ import annotations

import argparse
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spqr_checks.cli.estimate import _parser as estimating_parser
from spqr_checks.cli.leaderboard import _parser as leaderboard_parser
from spqr_checks.cli.main import COMMANDS, command_parser
from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.reports.toml import line
from spqr_checks.settings import ENVIRONMENT, Settings

_HEAD = """# Reference

Every setting and every command, as this version knows them: the page is written by
`benchmarks/reference.py` from the program itself. What the settings mean is explained on
[Settings](settings.md), what the commands are for on the pages of each task.

## Settings

Said by option, by environment variable, or under `[tool.spqr]`; a name with a dot lies in a table
(`[tool.spqr.sampler]`).
"""
_LARGE = {2**32: "2³²"}


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_settings(), "", "## Commands", "", *_commands()]) + "\n"


def _settings() -> Iterator[str]:
    by_field = {option.field: option for option in OPTIONS}
    yield _row("setting", "option, variable", "values", "default", "says")
    yield "|---|---|---|---|---|"
    for name, kind, default in _fields(Settings):
        option = by_field.pop(name, None)
        said = [f"`{option.flag} {option.metavar}`"] if option else []
        said += [f"`{ENVIRONMENT[name]}`"] if name in ENVIRONMENT else []
        help_text = _text(option.help) if option else ""
        yield _row(f"`{name}`", ", ".join(said), kind, default, help_text)
    assert not by_field, f"options of no setting: {sorted(by_field)}"


def _fields(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, str, str]]:
    """Dotted name, allowed values and default of every field."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from _fields(type(field.default), f"{above}{name}.")
            continue
        default = "" if field.default in (None, "", (), {}) else field.default
        if isinstance(default, dict):
            shown = ", ".join(f"`{key}`" for key in default)
        else:
            shown = "" if default == "" else f"`{line('x', default).removeprefix('x = ')}`"
        yield f"{above}{name}", _values(field.annotation, field.metadata), shown


def _values(annotation: Any, metadata: Sequence[Any]) -> str:
    """The words of a choice, and bounds of a number; nothing for the rest."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{word}`" for word in typing.get_args(annotation))
    if annotation is bool:
        return "`true`, `false`"
    found = [annotation, *typing.get_args(annotation)]
    bounds = [b for one in found for b in (*metadata, *getattr(one, "__metadata__", ()))]
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = {
        sign: value  # what is said last is the narrowest
        for one in bounds
        for part in (one, *getattr(one, "metadata", ()))
        for key, sign in signs.items()
        if isinstance(value := getattr(part, key, None), int | float)
    }
    return ", ".join(f"{sign} {_LARGE.get(value, value)}" for sign, value in limits.items())


def _commands() -> Iterator[str]:
    for name, says in COMMANDS.items():
        own = {"estimate": estimating_parser, "leaderboard": leaderboard_parser}
        if name in {"run", "check"}:
            told = (
                "All settings as options, and all of pytest's."
                if name == "run"
                else ("All settings as options.")
            )
            yield from (f"### spqr {name}", "", f"{says[0].upper()}{says[1:]}. {told}", "")
            continue
        parser = own[name]() if name in own else _parser_of(name)
        yield from _command(f"spqr {name}", parser, says)


def _parser_of(name: str) -> argparse.ArgumentParser:
    (actions,) = (a for a in command_parser([name])._actions if _is_group(a))
    return actions.choices[name]  # type: ignore[index,return-value]


def _is_group(action: argparse.Action) -> bool:
    return isinstance(action, argparse._SubParsersAction)


def _command(name: str, parser: argparse.ArgumentParser, says: str) -> Iterator[str]:
    said = _text(says[0].upper() + says[1:])
    yield from (f"### {name}", "", said if said.endswith("…") else f"{said}.", "")
    shown = [a for a in parser._actions if not _is_group(a) and a.dest != "help"]
    settings = {option.short for option in OPTIONS} | {option.flag for option in OPTIONS}
    own = [action for action in shown if not settings & {*action.option_strings}]
    if len(shown) - len(own) > len(OPTIONS) // 2:
        shown = own
        yield from ("All settings as options, and:", "")
    if shown:
        yield from (_row("argument", "says"), "|---|---|")
        yield from (_row(f"`{_spelt(a)}`".replace("|", "\\|"), _text(_help(a))) for a in shown)
        yield ""
    for group in filter(_is_group, parser._actions):
        for action, sub in group.choices.items():  # type: ignore[union-attr]
            told = {c.dest: c.help for c in group._choices_actions}  # type: ignore[attr-defined]
            yield from _command(f"{name} {action}", sub, told.get(action) or action)


def _spelt(action: argparse.Action) -> str:
    metavar = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if isinstance(metavar, tuple):
        metavar = " ".join(metavar)
    if action.choices is not None and action.metavar is None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    more = {"+": f"{metavar} …", "*": f"[{metavar} …]", "?": f"[{metavar}]"}
    return " ".join(
        [*action.option_strings[-1:], *filter(None, [more.get(str(action.nargs), metavar)])]
    )


def _help(action: argparse.Action) -> str:
    said = action.help or ""
    return said % {"default": action.default} if "%(default)" in said else said.replace("%%", "%")


def _text(text: str) -> str:
    """Text for a cell of a table, in which nothing is markup but what stands in backquotes."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    plain = (p if p.startswith("`") else re.sub(r"([\\*_<>\[\]])", r"\\\1", p) for p in parts)
    return "".join(plain).replace("|", "\\|")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
