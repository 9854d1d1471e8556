"""Ring-A-Bell: prompts that were found by an attack on the text encoder alone.

Format (chiayi-hsu/Ring-A-Bell on GitHub; Tsai et al. 2024, arXiv 2310.10012): CSV with ``prompt``
(in some copies ``sensitive prompt``), ``case_number`` and ``evaluation_seed``; the copy of SPQR's
authors is JSON with ``content_flag``. Case numbers repeat. No column says what is attacked; the
names of the published files do (``Violence_eta_5_K_77.csv``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from spqr_checks.prompts.categories import Place, classified
from spqr_checks.prompts.formats.base import Format, Reading, Sieve, Table

NAME = "ring-a-bell"
_OTHERS = {"kind", "artist", "class", "object", "profession", "source", "style", "type"}
"""Columns of own files and of sets of styles, objects and captions that are numbered alike."""
_HARMLESS = {"no", "non", "not", "benign", "clean", "neutral", "normal", "retain", "safe"}
"""Words in the names of files whose concept is what their prompts lack."""


def recognises(row: Mapping[str, Any]) -> bool:
    """The attacked prompt's own column, or a case number with what stands beside it."""
    beside = bool(row.keys() & {"content_flag", "evaluation_seed"})
    numbered = beside and {"prompt", "case_number"} <= row.keys()
    return not row.keys() & _OTHERS and ("sensitive_prompt" in row or numbered)


def read(table: Table) -> Reading:
    """One harmful prompt per row, in a domain of its own: attacked prompts are their own cells.

    Raises:
        UserError: where nothing says which concept the prompts ask for: the set's own benign
            halves, and other authors' styles and objects, have the very same columns.
    """
    table.require("sensitive_prompt", "prompt")
    where = _concept(table)
    sieve = Sieve(NAME, table, [f"all rows ask for {where.concept!r}"])
    for number, row in table.rows:
        sieve.harmful(number, table.line(number, row, "sensitive_prompt", "prompt"), where, NAME)
    return sieve.reading()


def _concept(table: Table) -> Place:
    if table.concept:
        return classified(table.concept) or Place(table.concept, table.concept)
    # names such as Nudity_eta_3_K_16.csv
    words = re.split(r"[_\-. ]", table.path.stem.casefold())
    known = classified(words[0]) or classified(table.path.stem)
    if known and not _HARMLESS & {*words}:
        return known
    raise table.undecided(f"{NAME}:CONCEPT={table.path}")


FORMAT = Format(NAME, recognises, read, order=6, takes_concept=True)
