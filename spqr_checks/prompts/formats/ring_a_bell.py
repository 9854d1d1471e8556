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
from spqr_checks.prompts.formats.base import Format
from spqr_checks.prompts.formats.reading import Reading, Sieve, Table
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.rows import text_field
from spqr_checks.prompts.text import one_line

NAME = "ring-a-bell"
_TEXT = ("sensitive_prompt", "prompt")
_BESIDE = {"content_flag", "evaluation_seed"}


def recognises(row: Mapping[str, Any]) -> bool:
    """The attacked prompt's own column, or a case number with what stands beside it."""
    if "kind" in row:
        return False
    return "sensitive_prompt" in row or (
        {"prompt", "case_number"} <= row.keys() and bool(row.keys() & _BESIDE)
    )


def read(table: Table) -> Reading:
    """One harmful prompt per row, in a domain of its own: attacked prompts are their own cells.

    Raises:
        UserError: where nothing says which concept the prompts ask for.
    """
    where, sieve = _concept(table), Sieve(NAME, table.path)
    for number, row in table.rows:
        name = next((name for name in _TEXT if name in row), _TEXT[-1])
        text = one_line(text_field(table.path, number, row, name))
        sieve.add(
            number,
            Prompt(
                sieve.id_of(number), text, "harmful", where.concept, where.category, domain=NAME
            ),
        )
    return sieve.reading(len(table.rows), [f"all rows ask for {where.concept!r}"])


def _concept(table: Table) -> Place:
    if table.concept:
        return classified(table.concept) or Place(table.concept, table.concept)
    # names such as Nudity_eta_3_K_16.csv
    first = re.split(r"[_\-. ]", table.path.stem, maxsplit=1)[0]
    known = classified(first) or classified(table.path.stem)
    if known is None:
        raise UserError(
            f"{table.path}: Ring-A-Bell's files do not say what they ask for; "
            f"name it, as in {NAME}:nudity={table.path}"
        )
    return known


FORMAT = Format(NAME, recognises, read, order=6, takes_concept=True)
