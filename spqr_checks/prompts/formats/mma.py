"""MMA-Diffusion: prompts that were found by an attack on the pooled vector of a text encoder.

Format (YijunYang280/MMA-Diffusion-NSFW-adv-prompts-benchmark on the Hub; Yang et al. 2024, arXiv
2311.17516): columns ``target_prompt``, ``adv_prompt``, ``sanitized_adv_prompt``, whether the latter
still works, and an unrelated ``clean_prompt``. All targets of the published file are of one kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spqr_checks.prompts.categories import Place, classified
from spqr_checks.prompts.formats.base import Format, Reading, Sieve, Table

NAME, _FOUND = "mma", "adv_prompt"
_PUBLISHED = Place("sexual", "sexual")


def recognises(row: Mapping[str, Any]) -> bool:
    """The attacked prompt beside its target."""
    return row.keys() >= {"target_prompt", _FOUND}


def read(table: Table) -> Reading:
    """One harmful prompt per row, in a domain of its own; ``mma:CONCEPT=PATH`` says another one."""
    table.require(_FOUND)
    where = _PUBLISHED
    if table.concept:
        where = classified(table.concept) or Place(table.concept, table.concept)
    sieve = Sieve(NAME, table, [f"all rows ask for {where.concept!r}"])
    for number, row in table.rows:
        sieve.harmful(number, table.line(number, row, _FOUND), where, NAME)
    return sieve.reading()


FORMAT = Format(NAME, recognises, read, order=8, takes_concept=True)
