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

from spqr_checks.errors import UserError
from spqr_checks.prompts.categories import Place, classified
from spqr_checks.prompts.formats.base import Format, Reading, Sieve, Table

NAME = "ring-a-bell"


def recognises(row: Mapping[str, Any]) -> bool:
    """The attacked prompt's own column, or a case number with what stands beside it."""
    beside = bool(row.keys() & {"content_flag", "evaluation_seed"})
    numbered = beside and {"prompt", "case_number"} <= row.keys()
    return "kind" not in row and ("sensitive_prompt" in row or numbered)


def read(table: Table) -> Reading:
    """One harmful prompt per row, in a domain of its own: attacked prompts are their own cells.

    Raises:
        UserError: where nothing says which concept the prompts ask for.
    """
    where = _concept(table)
    sieve = Sieve(NAME, table, [f"all rows ask for {where.concept!r}"])
    for number, row in table.rows:
        sieve.harmful(number, table.line(number, row, "sensitive_prompt", "prompt"), where, NAME)
    return sieve.reading()


def _concept(table: Table) -> Place:
    if table.concept:
        return classified(table.concept) or Place(table.concept, table.concept)
    # names such as Nudity_eta_3_K_16.csv
    first = re.split(r"[_\-. ]", table.path.stem, maxsplit=1)[0]
    if known := classified(first) or classified(table.path.stem):
        return known
    raise UserError(
        f"{table.path}: Ring-A-Bell's files do not say what they ask for; "
        f"name it, as in {NAME}:nudity={table.path}"
    )


FORMAT = Format(NAME, recognises, read, order=6, takes_concept=True)
