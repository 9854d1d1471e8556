"""Prompt files: CSV or JSON lines with {prompt, concept, category, language, domain, kind}."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts import coprov2, pair_files
from spqr_checks.prompts.prompt import ALL, FILE_KINDS, Prompt
from spqr_checks.prompts.rows import Row, read_rows, text_field
from spqr_checks.prompts.text import one_line

_FIELDS = ("id", "prompt", "kind", "concept", "category", "language", "domain", "anchor")


def read_prompts(path: Path) -> list[Prompt]:
    """Reads one prompt file.

    Only ``prompt`` and ``kind`` are required; ``concept`` too for harmful and look-alike
    prompts. Fields that are not listed in the module's first line are ignored. An ``id`` is
    made from the position where the file has none. Pair files and CoProV2's files are known by
    their headers: each pair becomes a harmful prompt with its anchor, and a look-alike.

    Raises:
        UserError: naming the file, the line and the field.
    """
    rows = read_rows(path)
    first = rows[0][1]
    if pair_files.is_pair_row(first):
        return [p for pair in pair_files.pairs_of(path, rows) for p in pair.prompts]
    if coprov2.is_coprov2_row(first):
        return coprov2.prompts_of(path, rows)
    return _own_prompts(path, rows)


def _own_prompts(path: Path, rows: Iterable[Row]) -> list[Prompt]:
    prompts: list[Prompt] = []
    first_line_of: dict[str, int] = {}
    for line, row in rows:
        prompt = _prompt(path, line, row)
        if prompt.id in first_line_of:
            raise UserError(
                f"{path}:{line}: id {prompt.id!r} is already used in line "
                f"{first_line_of[prompt.id]}; ids must be unique"
            )
        first_line_of[prompt.id] = line
        prompts.append(prompt)
    return prompts


def _prompt(path: Path, line: int, row: Mapping[str, Any]) -> Prompt:
    values = {name: one_line(text_field(path, line, row, name)) for name in _FIELDS}
    if not values["prompt"]:
        raise UserError(f"{path}:{line}: field 'prompt' is missing or empty")
    kind = next((k for k in FILE_KINDS if k == values["kind"]), None)
    if kind is None:
        raise UserError(
            f"{path}:{line}: field 'kind' is {values['kind']!r}; "
            f"it must be one of {', '.join(FILE_KINDS)}"
        )
    if kind != "benign" and not values["concept"]:
        raise UserError(f"{path}:{line}: a {kind} prompt needs the field 'concept'")
    return Prompt(
        id=values["id"] or f"{path.stem}:{line}",
        text=values["prompt"],
        kind=kind,
        concept=values["concept"] or ALL,
        category=values["category"] or ALL,
        language=values["language"] or "en",
        domain=values["domain"] or "plain",
        anchor=values["anchor"],
    )
