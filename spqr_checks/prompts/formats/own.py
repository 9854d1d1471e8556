"""This package's own prompt files: {prompt, kind, concept, category, language, domain, anchor, id}.

Faults are refused, since whoever wrote the file can mend it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.categories import classified
from spqr_checks.prompts.formats.base import Format
from spqr_checks.prompts.formats.reading import Dropped, Reading, Table
from spqr_checks.prompts.prompt import ALL, FILE_KINDS, FileKind, Prompt
from spqr_checks.prompts.rows import text_field
from spqr_checks.prompts.tables import place
from spqr_checks.prompts.text import is_blank, one_line

NAME = "own"
FIELDS = ("id", "prompt", "kind", "concept", "category", "language", "domain", "anchor")
STATUS, DOUBTFUL = "status", "doubtful"
"""How a translation is marked whose back-translation is unlike its source."""
_DROPPED = "doubtful translation"


def recognises(row: Mapping[str, Any]) -> bool:
    """Only own files have a ``kind``."""
    return "kind" in row


def read(table: Table) -> Reading:
    """Only ``prompt`` and ``kind`` are required; ``concept`` too unless benign.

    Other fields are ignored. An ``id`` is made from the position where the file has none.

    Raises:
        UserError: naming the file, the line and the field.
    """
    prompts: list[Prompt] = []
    dropped: list[Dropped] = []
    first_row_of: dict[str, int] = {}
    for number, row in table.rows:
        prompt = _prompt(table.path, number, row)
        if prompt.id in first_row_of:
            raise UserError(
                f"{place(table.path, number)}: id {prompt.id!r} is already used in line "
                f"{first_row_of[prompt.id]}; ids must be unique"
            )
        first_row_of[prompt.id] = number
        status = one_line(text_field(table.path, number, row, STATUS)).casefold()
        if status == DOUBTFUL and not table.doubtful:
            dropped.append(Dropped(number, _DROPPED))
        else:
            prompts.append(prompt)
    return Reading(NAME, len(table.rows), tuple(prompts), tuple(dropped))


def _prompt(path: Path, number: int, row: Mapping[str, Any]) -> Prompt:
    where = place(path, number)
    values = {name: one_line(text_field(path, number, row, name)) for name in FIELDS}
    if is_blank(values["prompt"]):
        raise UserError(f"{where}: field 'prompt' is missing or empty")
    kind = _kind(values["kind"])
    if kind is None:
        other = "" if values["kind"] else f"\nOf another format? Name it, as in i2p={path}"
        raise UserError(
            f"{where}: field 'kind' is {values['kind']!r}; "
            f"it must be one of {', '.join(FILE_KINDS)}{other}"
        )
    if kind != "benign" and is_blank(values["concept"]):
        raise UserError(f"{where}: a {kind} prompt needs the field 'concept'")
    known = classified(values["category"])
    return Prompt(
        id=values["id"] or f"{path.stem}:{number}",
        text=values["prompt"],
        kind=kind,
        concept=values["concept"] or ALL,
        category=(known.concept if known else values["category"]) or ALL,
        language=values["language"] or "en",
        domain=values["domain"] or "plain",
        anchor=values["anchor"],
    )


def _kind(text: str) -> FileKind | None:
    """The kind, however it is spelled: ``Look-alike`` is one too."""
    letters = "".join(c for c in text.casefold() if c not in " -_")
    return next((kind for kind in FILE_KINDS if kind == letters), None)


FORMAT = Format(NAME, recognises, read, order=0)
