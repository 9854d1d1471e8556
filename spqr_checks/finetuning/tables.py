"""Rows of the tables that data sets and prompts come in: JSON lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError

CAPTION_FIELDS = ("text", "caption", "prompt")
"""Where a row's caption is looked for; the first that the row has counts."""

Row = tuple[int, dict[str, Any]]
"""Line number, counted from 1, and the fields of that line."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; raises UserError where it cannot be read as such."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a ``.jsonl`` or ``.csv`` file, blank lines left out.

    Raises:
        UserError: for a line that is no JSON object, or has not as many fields as the header.
    """
    text = read_text(path)
    return _csv_rows(path, text) if path.suffix == ".csv" else _json_rows(path, text)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    # not splitlines: U+2028 and its like may stand inside a JSON string
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            value = json.loads(row)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{line}: not JSON: {error.msg}; correct this line") from None
        if not isinstance(value, dict):
            raise UserError(f"{path}:{line}: expected an object with its fields in braces")
        yield line, value


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise UserError(
                    f"{path}:{reader.line_num}: not as many fields as the header has; "
                    "put quotes around text that holds commas"
                )
            yield reader.line_num, dict(row)
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def caption_of(path: Path, line: int, row: dict[str, Any]) -> str:
    """The caption of a row; raises UserError where there is none."""
    field = next((name for name in CAPTION_FIELDS if name in row), None)
    if field is None:
        *others, last = CAPTION_FIELDS
        raise UserError(
            f"{path}:{line}: no caption; add a field named {', '.join(others)} or {last}"
        )
    text = row[field]
    if not isinstance(text, str):
        raise UserError(f"{path}:{line}: field {field!r} must be text")
    if not text.strip():
        raise UserError(f"{path}:{line}: field {field!r} is empty; every image needs a caption")
    return text.strip()
