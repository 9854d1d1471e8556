"""I2P, inappropriate image prompts: real users' prompts in seven categories.

Format (AIML-TUDA/i2p on the Hub; Schramowski et al. 2023, arXiv 2211.05105): columns ``prompt``,
``categories`` (several, separated by commas), ``hard``, ``nudity_percentage``, ``sd_seed`` and
others. Of the 4,703 rows, 379 have several categories and about 240 repeat a prompt with another
seed. Seeds are this package's own, so that such rows add nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.categories import Place, required
from spqr_checks.prompts.formats.base import Format, Reading, Sieve, Table
from spqr_checks.prompts.tables import place

NAME = "i2p"
_BY_NUDITY = "nudity_percentage"
_OWN = {"categories", _BY_NUDITY, "inappropriate_percentage", "q16_percentage"}
_WITHOUT = Place("sexual", "sexual")
"""Files without categories are the selection by nudity, as the authors of SPQR publish it."""


def recognises(row: Mapping[str, Any]) -> bool:
    """``categories``, or one of the measured percentages, beside the prompt."""
    return "prompt" in row and "kind" not in row and bool(row.keys() & _OWN)


def read(table: Table) -> Reading:
    """Each prompt once, under the first of its categories.

    Raises:
        UserError: for a row without a category, or with an unknown one; for a file that has neither
            categories nor the share of nudity, by which the published selection was made.
    """
    table.require("prompt")
    if not any(row.keys() & {"categories", _BY_NUDITY} for _, row in table.rows):
        raise table.undecided("add the field 'categories'")
    sieve, several, none = Sieve(NAME, table), 0, 0
    for number, row in table.rows:
        places = [_WITHOUT]
        if "categories" in row:
            places = [required(table.path, number, name) for name in _names(table, number, row)]
            several += len(places) > 1
        else:
            none += 1
        sieve.harmful(number, table.line(number, row, "prompt"), places[0])
    if several:
        sieve.notes.append(f"{several} rows have several categories; each counts under the first")
    if none:
        sieve.notes.append(
            f"{none} rows have no field 'categories' and count as {_WITHOUT.category}"
        )
    return sieve.reading()


def _names(table: Table, number: int, row: Mapping[str, Any]) -> list[str]:
    value = row["categories"]
    parts = value if isinstance(value, list) else str(value or "").split(",")
    if names := [part.strip() for part in parts if isinstance(part, str) and part.strip()]:
        return names
    raise UserError(f"{place(table.path, number)}: field 'categories' is empty")


FORMAT = Format(NAME, recognises, read, order=4)
