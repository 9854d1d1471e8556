"""Pair files: CSV or JSON lines with {id, category, concept, unsafe, safe, provenance}."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.pair import PromptPair
from spqr_checks.prompts.rows import check_ending, read_rows, text_field
from spqr_checks.prompts.tables import Row, place

FIELDS = ("id", "category", "concept", "unsafe", "safe", "provenance")


def is_pair_row(row: Mapping[str, Any]) -> bool:
    """Whether the fields are those of a pair file."""
    return {"unsafe", "safe"} <= row.keys() and "prompt" not in row


def read_pairs(path: Path) -> list[PromptPair]:
    """Reads a pair file; ``concept`` and ``provenance`` may be missing, other fields are ignored.

    Raises:
        UserError: naming the file, the line and the field.
    """
    return pairs_of(path, read_rows(path))


def pairs_of(path: Path, rows: Iterable[Row]) -> list[PromptPair]:
    """The pairs in a file's rows; raises UserError as ``read_pairs`` does."""
    pairs: list[PromptPair] = []
    first_line_of: dict[str, int] = {}
    for line, row in rows:
        fields = {name: text_field(path, line, row, name) for name in FIELDS}
        try:
            pair = PromptPair(**fields)
        except ValueError as error:
            raise UserError(f"{place(path, line)}: {error}") from None
        if pair.id in first_line_of:
            raise UserError(
                f"{place(path, line)}: id {pair.id!r} is already used in line "
                f"{first_line_of[pair.id]}; ids must be unique"
            )
        first_line_of[pair.id] = line
        pairs.append(pair)
    return pairs


def write_pairs(path: Path, pairs: Sequence[PromptPair]) -> None:
    """Writes a pair file in one step: after a crash there is the old file or the new one.

    Raises:
        UserError: for a name that is neither .csv nor .jsonl, or a file that cannot be written.
        ValueError: for an id used twice.
    """
    check_ending(path)
    if len({pair.id for pair in pairs}) != len(pairs):
        raise ValueError("two pairs have the same id")
    rows = [{name: getattr(pair, name) for name in FIELDS} for pair in pairs]
    text = csv_text(FIELDS, rows) if path.suffix == ".csv" else json_text(rows)
    replace_text(path, text)


def csv_text(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a header; all fields are quoted, so that lone carriage returns survive."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fields, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def json_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """JSON lines, letters of all scripts as they are."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def replace_text(path: Path, text: str) -> None:
    """Puts a UTF-8 file in place by an atomic rename; raises UserError if that cannot be done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
