"""Pair files: CSV or JSON lines with {id, category, concept, unsafe, safe, provenance}."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.prompt import PromptPair
from spqr_checks.prompts.tables import Row, check_ending, place, read_rows, require, text_field
from spqr_checks.user_files import replace_text

FIELDS = ("id", "category", "concept", "unsafe", "safe", "provenance")


def read_pairs(path: Path) -> list[PromptPair]:
    """Reads a pair file; ``concept`` and ``provenance`` may be missing, other fields are ignored.

    Raises:
        UserError: naming the file, the line and the field.
    """
    return pairs_of(path, read_rows(path))


def pairs_of(path: Path, rows: Iterable[Row]) -> list[PromptPair]:
    """The pairs in a file's rows; raises UserError as ``read_pairs`` does."""
    rows = list(rows)
    for name in ("id", "category", "unsafe", "safe"):
        require(path, rows, name)
    pairs: dict[str, PromptPair] = {}
    first_line_of: dict[str, int] = {}
    for line, row in rows:
        try:
            pair = PromptPair(**{name: text_field(path, line, row, name) for name in FIELDS})
        except ValueError as error:
            raise UserError(f"{place(path, line)}: {error}") from None
        refuse_second(path, line, pair.id, first_line_of)
        pairs[pair.id] = pair
    return list(pairs.values())


def refuse_second(path: Path, line: int, name: str, first_line_of: dict[str, int]) -> None:
    """Notes the line of an id; raises UserError if it has been used before."""
    if (first := first_line_of.setdefault(name, line)) != line:
        raise UserError(
            f"{place(path, line)}: id {name!r} is already used in line {first}; ids must be unique"
        )


def write_pairs(path: Path, pairs: Sequence[PromptPair]) -> None:
    """Writes a pair file in one step: after a crash there is the old file or the new one.

    Raises:
        UserError: for a name that is neither .csv nor .jsonl, or a file that cannot be written.
        ValueError: for an id used twice.
    """
    check_ending(path)
    if len({pair.id for pair in pairs}) != len(pairs):
        raise ValueError("two pairs have the same id")
    write_rows(path, FIELDS, [{name: getattr(pair, name) for name in FIELDS} for pair in pairs])


def write_rows(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes .csv with a header, or JSON lines, in one step.

    In CSV all fields are quoted, so that lone carriage returns survive; in JSON letters of all
    scripts stay as they are.

    Raises:
        UserError: for a file that cannot be written.
    """
    if path.suffix != ".csv":
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return replace_text(path, "".join(lines))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fields, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return replace_text(path, out.getvalue())
