"""Rows of the tables that prompts and captions come in: CSV, JSON lines, JSON and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError

Row = tuple[int, Mapping[str, Any]]
"""Where a row is, counted from 1 (see ``place``), and its fields."""

_NUMBERED = (".json", ".parquet")
"""Files whose rows are counted; of the others, it is the lines that are."""


def place(path: Path, number: int) -> str:
    """How errors name a row: ``prompts.csv:7`` is a line, ``prompts.json: row 7`` the 7th row."""
    return f"{path}: row {number}" if path.suffix in _NUMBERED else f"{path}:{number}"


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: where it cannot be read as such.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a table, by the ending of its name; blank lines are left out.

    Fields that a line of CSV lacks at its end are None.

    Raises:
        UserError: for a file that cannot be read, naming the place.
    """
    match path.suffix:
        case ".parquet":
            return _parquet_rows(path)
        case ".csv":
            return _csv_rows(path, read_text(path))
        case ".json":
            return _json_rows(path, read_text(path))
        case _:
            return _json_lines(path, read_text(path))


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
                if repeated := {name for name in header if name and header.count(name) > 1}:
                    raise UserError(
                        f"{path}:{line}: the header names {min(repeated)!r} twice; keep one column"
                    )
            elif len(values) > len(header):
                raise UserError(
                    f"{path}:{line}: not as many fields as the header has, but more; "
                    "put quotes around text that holds commas"
                )
            else:
                yield line, dict.fromkeys(header) | dict(zip(header, values, strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: not CSV: {error}") from None


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    # not splitlines: U+2028 and its like may stand inside a JSON string
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            value = json.loads(row)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}:{line}: not JSON: {_reason(error)}; correct it") from None
        yield line, _fields(path, line, value)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    """A list of objects; of COCO's annotation files, the list ``annotations``."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}; correct it") from None
    except RecursionError as error:
        raise UserError(f"{path}: not JSON: {_reason(error)}") from None
    if isinstance(value, dict):
        value = value.get("annotations")
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a list of objects (one per line is .jsonl)")
    for number, row in enumerate(value, start=1):
        yield number, _fields(path, number, row)


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"


def _fields(path: Path, number: int, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{place(path, number)}: expected an object with its fields in braces")
    return value


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise UserError(
            f"{path}: Parquet needs pyarrow; install spqr-checks[parquet], or give CSV"
        ) from None
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        rows = read_table(path).to_pylist()
    except (ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise UserError(f"{path}: cannot be read as Parquet: {reason}") from None
    yield from enumerate(rows, start=1)
