"""ViSU: COCO captions, each with an unsafe sentence near it.

Format (aimagelab/ViSU-Text on the Hub; Poppi et al. 2024, arXiv 2311.16254): ``safe``, ``nsfw``,
``tag`` (one of twenty) and ids. The set is gated: accept its conditions, then take the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.prompts.categories import required
from spqr_checks.prompts.formats.base import EMPTY, Format, Reading, Sieve, Table
from spqr_checks.prompts.prompt import PromptPair
from spqr_checks.prompts.tables import text_field
from spqr_checks.prompts.text import is_blank

NAME = "visu"


def recognises(row: Mapping[str, Any]) -> bool:
    """Both sentences under their published names."""
    return row.keys() >= {"safe", "nsfw"}


def read(table: Table) -> Reading:
    """A harmful prompt with its anchor from each row, and a look-alike.

    The tag is the concept; its category is that of the taxonomy.

    Raises:
        UserError: for an unknown tag.
    """
    for name in ("nsfw", "safe", "tag"):
        table.require(name)
    sieve = Sieve(NAME, table)
    for number, row in table.rows:
        unsafe, safe, tag = (
            text_field(table.path, number, row, name) for name in ("nsfw", "safe", "tag")
        )
        where = required(table.path, number, tag)
        if is_blank(unsafe) or is_blank(safe):
            sieve.drop(number, EMPTY)
            continue
        try:
            pair = PromptPair(sieve.id_of(number), where.category, unsafe, safe, where.concept)
        except ValueError:
            sieve.drop(number, "both texts are the same")
            continue
        for prompt in pair.prompts:
            sieve.add(number, prompt)
    return sieve.reading()


FORMAT = Format(NAME, recognises, read, order=2)
