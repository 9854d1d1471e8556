"""This package's files of pairs, as `spqr pairs build` writes them."""

from __future__ import annotations

from spqr_checks.prompts.formats.base import Format
from spqr_checks.prompts.formats.reading import Reading, Table
from spqr_checks.prompts.pair_files import is_pair_row, pairs_of

NAME = "pairs"
recognises = is_pair_row


def read(table: Table) -> Reading:
    """Of each pair a harmful prompt with its anchor, and a look-alike; errors as ``pairs_of``."""
    pairs = pairs_of(table.path, table.rows)
    return Reading(NAME, len(table.rows), tuple(p for pair in pairs for p in pair.prompts))


FORMAT = Format(NAME, recognises, read, order=1)
