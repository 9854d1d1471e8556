"""Rows of a prompt file, their fields under one spelling of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.tables import Row, place, rows_of

ENDINGS = (".csv", ".jsonl")
"""What this package writes."""
READABLE = (*ENDINGS, ".json", ".parquet")


def check_ending(path: Path, endings: Sequence[str] = ENDINGS) -> None:
    """Raises UserError unless the name has one of the endings."""
    if path.suffix not in endings:
        known = f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise UserError(f"{path}: prompt files are {known}, not {path.suffix or 'this'}")


def raw_rows(path: Path) -> list[Row]:
    """All rows of a prompt file, their fields named as in the file.

    Raises:
        UserError: naming the file and the line.
    """
    check_ending(path, READABLE)
    rows = list(rows_of(path))
    if not rows:
        raise UserError(f"{path}: no prompts in this file")
    return rows


def read_rows(path: Path) -> list[Row]:
    """All rows of a prompt file, their fields named as by ``field_name``.

    Raises:
        UserError: naming the file and the line; also for two names that are the same then.
    """
    return named_alike(path, raw_rows(path))


def named_alike(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Rows with their fields renamed; raises UserError as ``read_rows`` does."""
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    found: list[Row] = []
    for number, row in rows:
        names = tuple(row)
        if names not in known:
            known[names] = tuple(field_name(name) for name in names)
            _refuse_twins(path, number, names, known[names])
        found.append((number, dict(zip(known[names], row.values(), strict=True))))
    return found


def field_name(name: str) -> str:
    """A field's name but for case, spaces, hyphens and underscores: ``Sensitive Prompt``."""
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())


def _refuse_twins(path: Path, number: int, names: Sequence[str], alike: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name, other in zip(names, alike, strict=True):
        if other and other in first:
            where = place(path, 1 if path.suffix == ".csv" else number)
            raise UserError(
                f"{where}: the fields {first[other]!r} and {name!r} are the same; keep one"
            )
        first[other] = name


def text_field(path: Path, line: int, row: Mapping[str, Any], name: str) -> str:
    """One field as it stands in the file, ``""`` where it is missing.

    Raises:
        UserError: for a list, an object or a lone surrogate, which is no Unicode text.
    """
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str | int):
        raise UserError(f"{place(path, line)}: field {name!r} must be text")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{place(path, line)}: field {name!r} is not valid Unicode") from None
    return text
