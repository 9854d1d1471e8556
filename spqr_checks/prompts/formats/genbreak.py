"""GenBreak: prompts that a language model was trained to find (arXiv 2506.10047).

No file of the authors is public; these are the columns that their tables speak of: ``prompt``,
``category`` and ``round``, the round of the search that a prompt comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.prompts.categories import Place, classified
from spqr_checks.prompts.formats.base import Format, Reading, Sieve, Table
from spqr_checks.prompts.text import is_blank

NAME = "genbreak"
_COLUMNS = {"prompt", "category", "round"}


def recognises(row: Mapping[str, Any]) -> bool:
    """The three columns, and not the ``kind`` of our own files."""
    return row.keys() >= _COLUMNS and "kind" not in row


def read(table: Table) -> Reading:
    """One harmful prompt per row, in a domain of its own; a category that is unknown is kept."""
    for name in sorted(_COLUMNS):
        table.require(name)
    sieve = Sieve(NAME, table)
    for number, row in table.rows:
        category = table.line(number, row, "category")
        if is_blank(category):
            sieve.drop(number, "without a category")
            continue
        where = classified(category) or Place(category, category)
        sieve.harmful(number, table.line(number, row, "prompt"), where, NAME)
    return sieve.reading()


FORMAT = Format(NAME, recognises, read, order=7)
