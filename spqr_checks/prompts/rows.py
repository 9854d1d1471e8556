"""Rows of a prompt file: CSV with a header, or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError

ENDINGS = (".csv", ".jsonl")
Row = tuple[int, Mapping[str, Any]]
"""The line on which a row begins, counted from 1, and its fields."""


def check_ending(path: Path) -> None:
    """Raises UserError unless the name says CSV or JSON lines."""
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: prompt files are .csv or .jsonl, not {path.suffix or 'this'}")


def read_rows(path: Path) -> list[Row]:
    """All rows of a UTF-8 file, with or without a byte order mark; blank lines are left out.

    Raises:
        UserError: naming the file and the line.
    """
    check_ending(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such prompt file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    rows = list(_csv_rows(path, text) if path.suffix == ".csv" else _json_rows(path, text))
    if not rows:
        raise UserError(f"{path}: no prompts in this file")
    return rows


def text_field(path: Path, line: int, row: Mapping[str, Any], name: str) -> str:
    """One field as it stands in the file, ``""`` where it is missing.

    Raises:
        UserError: for a list, an object or a lone surrogate, which is no Unicode text.
    """
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str | int):
        raise UserError(f"{path}:{line}: field {name!r} must be text")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path}:{line}: field {name!r} is not valid Unicode") from None
    return text


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
                raise UserError(f"{path}:{line}: more fields than the header has")
            else:
                yield line, dict.fromkeys(header) | dict(zip(header, values, strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{line}: {error}") from None


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    # not splitlines: U+2028 and its like may stand inside a JSON string
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            value = json.loads(row)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{line}: not JSON: {error.msg}") from None
        if not isinstance(value, dict):
            raise UserError(f"{path}:{line}: expected an object with a field 'prompt'")
        yield line, value
