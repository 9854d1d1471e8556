"""Captions in the rows of metadata and prompt files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.tables import Row, place, rows_of

CAPTION_FIELDS = ("text", "caption", "prompt")
"""Where a row's caption is looked for; the first that the row has counts."""


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a table, blank lines left out.

    Raises:
        UserError: for a line that is no JSON object, or has not as many fields as the header.
    """
    for line, row in rows_of(path):
        if path.suffix == ".csv" and None in row.values():
            raise UserError(
                f"{path}:{line}: not as many fields as the header has; "
                "put quotes around text that holds commas"
            )
        yield line, row


def caption_of(path: Path, line: int, row: Mapping[str, Any]) -> str:
    """The caption of a row; raises UserError where there is none."""
    at = place(path, line)
    field = next((name for name in CAPTION_FIELDS if name in row), None)
    if field is None:
        *others, last = CAPTION_FIELDS
        raise UserError(f"{at}: no caption; add a field named {', '.join(others)} or {last}")
    text = row[field]
    if not isinstance(text, str):
        raise UserError(f"{at}: field {field!r} must be text")
    if not text.strip():
        raise UserError(f"{at}: field {field!r} is empty; every image needs a caption")
    return text.strip()
