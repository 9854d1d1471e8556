"""This package's files of pairs, as `spqr pairs build` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.prompts.formats.base import Format, Reading, Table
from spqr_checks.prompts.pair_files import pairs_of

NAME = "pairs"


def recognises(row: Mapping[str, Any]) -> bool:
    """Both sides of a pair."""
    return {"unsafe", "safe"} <= row.keys() and "prompt" not in row


def read(table: Table) -> Reading:
    """Of each pair a harmful prompt with its anchor, and a look-alike; errors as ``pairs_of``."""
    pairs = pairs_of(table.path, table.rows)
    return Reading(NAME, len(table.rows), tuple(p for pair in pairs for p in pair.prompts))


FORMAT = Format(NAME, recognises, read, order=1)
