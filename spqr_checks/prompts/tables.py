"""Rows of the tables that prompts and captions come in: CSV, JSON lines, JSON and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.packages import importing
from spqr_checks.user_files import MOST_BYTES, parse_json, read_text, refuse_irregular

Row = tuple[int, Mapping[str, Any]]
"""Where a row is, counted from 1 (see ``place``), and its fields."""
ENDINGS = (".csv", ".jsonl")
"""What this package writes."""
READABLE = (*ENDINGS, ".json", ".parquet")
_NUMBERED = (".json", ".parquet")
"""Files whose rows are counted; of the others, it is the lines that are."""
_USUAL = {"id", "prompt", "text", "caption", "kind", "category", "safe", "unsafe", "image"}
"""A line that has one of these is a header."""
_LONGEST_NAME = 4
"""Words of a column's name; what is longer is a text."""


def place(path: Path, number: int) -> str:
    """How errors name a row: ``prompts.csv:7`` is a line, ``prompts.json: row 7`` the 7th row."""
    return f"{path}: row {number}" if path.suffix in _NUMBERED else f"{path}:{number}"


def check_ending(path: Path, endings: Sequence[str] = ENDINGS) -> None:
    """Raises UserError unless the name has one of the endings."""
    if path.suffix not in endings:
        known = f"{', '.join(endings[:-1])} or {endings[-1]}"
        raise UserError(f"{path}: prompt files are {known}, not {path.suffix or 'this'}")


def read_rows(path: Path) -> list[Row]:
    """All rows of a prompt file, their fields named as by ``field_name``.

    Raises:
        UserError: naming the file and the line; also for two names that are the same then.
    """
    return named_alike(path, raw_rows(path))


def raw_rows(path: Path) -> list[Row]:
    """All rows of a prompt file, their fields named as in the file.

    Raises:
        UserError: naming the file and the line.
    """
    check_ending(path, READABLE)
    if rows := list(rows_of(path)):
        return rows
    raise UserError(f"{path}: no prompts in this file")


def named_alike(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Rows with their fields renamed; raises UserError as ``read_rows`` does."""
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    found: list[Row] = []
    for number, row in rows:
        names = tuple(row)
        if names not in known:
            where = place(path, 1 if path.suffix == ".csv" else number)
            known[names] = _alike(where, names)
        found.append((number, dict(zip(known[names], row.values(), strict=True))))
    return found


def _alike(where: str, names: Sequence[str]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(field_name(name), name)) is not name and field_name(name):
            raise UserError(f"{where}: the fields {other!r} and {name!r} are the same; keep one")
    return tuple(map(field_name, names))


def field_name(name: str) -> str:
    """A field's name but for case, spaces, hyphens and underscores: ``Sensitive Prompt``."""
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())


def fields_of(rows: Sequence[Row]) -> dict[str, None]:
    """The names of all fields that some row has, in their order."""
    return dict.fromkeys(name for _, row in rows for name in row if name)


def require(path: Path, rows: Sequence[Row], *names: str) -> None:
    """Raises UserError, naming the fields that are there, where no row has one of ``names``."""
    there = fields_of(rows)
    if there.keys() & set(names):
        return
    wanted = " or ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))
    hint = "\nIf those are prompts, the file has no header: write one into its first line."
    named = path.suffix != ".csv" or there.keys() & _USUAL
    raise UserError(
        f"{path}: no field {wanted}; there are: {', '.join(there)}{'' if named else hint}"
    )


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
    if text.isascii():  # known without a look at the letters
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{place(path, line)}: field {name!r} is not valid Unicode") from None
    return text


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a table, by the ending of its name; blank lines are left out.

    Fields that a line of CSV lacks at its end are None.

    Raises:
        UserError: for a file that cannot be read, naming the place.
    """
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    read = {".csv": _csv_rows, ".json": _json_rows}.get(path.suffix, _json_lines)
    return read(path, read_text(path))


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    line = 1
    try:
        for values in reader:
            if not values:
                pass
            elif not header:
                header = [name.strip() for name in values]
                if text := next((n for n in header if len(n.split()) > _LONGEST_NAME), ""):
                    raise UserError(
                        f"{path}:{line}: no header: {text[:40]!r} is no column's name; write the "
                        "names of the columns into a line above, as in prompt,kind,concept"
                    )
                if repeated := {name for name in header if name and header.count(name) > 1}:
                    raise UserError(
                        f"{path}:{line}: the header names {min(repeated)!r} twice; keep one column"
                    )
            elif len(values) > len(header):
                raise UserError(
                    f"{path}:{line}: not as many fields as the header has, but more; "
                    "put quotes around text that holds commas, and the columns' names into the "
                    "first line"
                )
            else:
                yield line, dict.fromkeys(header) | dict(zip(header, values, strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not CSV: {error}") from None


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    # not splitlines: U+2028 and its like may stand inside a JSON string
    for line, row in enumerate(text.split("\n"), start=1):
        if row.strip():
            yield line, _fields(path, line, parse_json(row, path, line))


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    """A list of objects; of COCO's annotation files, the list ``annotations``."""
    value = parse_json(text, path)
    if isinstance(value, dict):
        value = value.get("annotations")
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a list of objects (one per line is .jsonl)")
    for number, row in enumerate(value, start=1):
        yield number, _fields(path, number, row)


def _fields(path: Path, number: int, value: Any) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise UserError(f"{place(path, number)}: expected an object with its fields in braces")


def _parquet_rows(path: Path) -> Iterator[Row]:
    with importing(f"{path}: Parquet", "pyarrow", extra="parquet"):
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    refuse_irregular(path, MOST_BYTES)
    try:
        rows = read_table(path).to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise UserError(f"{path}: cannot be read as Parquet: {reason}") from None
    yield from enumerate(rows, start=1)
