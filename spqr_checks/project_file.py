"""``[tool.spqr]`` in pyproject.toml: its values, and where in the file each of them stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.user_files import read_text, read_toml


def project_table(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """``[tool.spqr]`` of the nearest pyproject.toml, and where in it each key stands."""
    for parent in (folder, *folder.parents):
        path = parent / "pyproject.toml"
        if not path.is_file():
            continue
        table: Any = read_toml(path)
        for name in ("tool", "spqr"):
            table = table.get(name, {})
            if not isinstance(table, dict):
                raise UserError(f"{path}: {name!r} is no table; write the settings in [tool.spqr]")
        lines = dict(_lines(read_text(path)))
        said: dict[str, str] = {}
        for key in _keys(table):
            above = said.get(key.rpartition(".")[0], f"{path} [tool.spqr]")  # if in its line
            said[key] = f"{path}:{n}" if (n := lines.get(f"tool.spqr.{key}")) else above
        return table, said
    return {}, {}


def _keys(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Dotted names of a table's keys and of those in its tables."""
    for key, value in table.items():
        yield f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{above}{key}.")


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Dotted keys of a TOML file and their lines; the parser of Python does not say them."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        found = re.match(r"\s*(?:\[\[?([^\[\]]+)\]|([^=#\[\]{}]+?)\s*=)", line)
        if found is not None:
            name = ".".join(part.strip(" \t\"'") for part in (found[1] or found[2]).split("."))
            if found[1]:
                table = f"{name}."
            yield name if found[1] else f"{table}{name}", number
