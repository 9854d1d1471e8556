"""This package's own prompt files: {prompt, kind, concept, category, language, domain, anchor, id}.

Faults are refused, since whoever wrote the file can mend it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.categories import classified
from spqr_checks.prompts.formats.base import Dropped, Format, Reading, Table
from spqr_checks.prompts.pair_files import refuse_second
from spqr_checks.prompts.prompt import ALL, FILE_KINDS, FileKind, Prompt
from spqr_checks.prompts.tables import place
from spqr_checks.prompts.text import is_blank

NAME = "own"
FIELDS = ("id", "prompt", "kind", "concept", "category", "language", "domain", "anchor")
STATUS, DOUBTFUL = "status", "doubtful"
"""How a translation is marked whose back-translation is unlike its source."""


def recognises(row: Mapping[str, Any]) -> bool:
    """Only own files have a ``kind``."""
    return "kind" in row


def read(table: Table) -> Reading:
    """Only ``prompt`` and ``kind`` are required; ``concept`` too unless benign.

    Other fields are ignored. An ``id`` is made from the position where the file has none.

    Raises:
        UserError: naming the file, the line and the field.
    """
    table.require("prompt")
    if not any("kind" in row for _, row in table.rows):
        raise table.undecided("add the fields 'kind' (harmful) and 'concept'")
    prompts: list[Prompt] = []
    dropped: list[Dropped] = []
    first_line_of: dict[str, int] = {}
    for number, row in table.rows:
        prompt = _prompt(table, number, row)
        refuse_second(table.path, number, prompt.id, first_line_of)
        if table.line(number, row, STATUS).casefold() == DOUBTFUL and not table.doubtful:
            dropped.append(Dropped(number, "doubtful translation"))
        else:
            prompts.append(prompt)
    places = {name: place(table.path, line) for name, line in first_line_of.items()}
    return Reading(NAME, len(table.rows), tuple(prompts), tuple(dropped), places=places)


def _prompt(table: Table, number: int, row: Mapping[str, Any]) -> Prompt:
    where = place(table.path, number)
    values = {name: table.line(number, row, name) for name in FIELDS}
    if is_blank(values["prompt"]):
        raise UserError(f"{where}: field 'prompt' is missing or empty")
    kind = _kind(values["kind"])
    if kind is None:
        raise UserError(
            f"{where}: field 'kind' is {values['kind']!r}; "
            f"it must be one of {', '.join(FILE_KINDS)}"
        )
    if kind != "benign" and is_blank(values["concept"]):
        raise UserError(f"{where}: a {kind} prompt needs the field 'concept'")
    known = classified(values["category"])
    return Prompt(
        id=values["id"] or f"{table.path.stem}:{number}",
        text=values["prompt"],
        kind=kind,
        concept=values["concept"] or ALL,
        category=(known.concept if known else values["category"]) or ALL,
        language=values["language"] or "en",
        domain=values["domain"] or "plain",
        anchor=values["anchor"],
    )


@lru_cache
def _kind(text: str) -> FileKind | None:
    """The kind, however it is spelled: ``Look-alike`` is one too."""
    letters = "".join(c for c in text.casefold() if c not in " -_")
    return next((kind for kind in FILE_KINDS if kind == letters), None)


FORMAT = Format(NAME, recognises, read, order=0)
