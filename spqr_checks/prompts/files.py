"""Prompt files: CSV or JSON lines with {prompt, concept, category, language, domain, kind}."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.prompts.prompt import ALL, FILE_KINDS, Prompt

_FIELDS = ("id", "prompt", "kind", "concept", "category", "language", "domain", "anchor")
_LIST_ENDINGS = (".csv", ".jsonl")


def read_prompts(path: Path) -> list[Prompt]:
    """Reads one prompt file.

    Only ``prompt`` and ``kind`` are required; ``concept`` too for harmful and look-alike
    prompts. Fields that are not listed in the module's first line are ignored. An ``id`` is
    made from the position where the file has none.

    Raises:
        UserError: naming the file, the line and the field.
    """
    if path.suffix not in _LIST_ENDINGS:
        raise UserError(f"{path}: prompt files are .csv or .jsonl, not {path.suffix or 'this'}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such prompt file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    rows = _csv_rows(path, text) if path.suffix == ".csv" else _json_rows(path, text)
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
    if not prompts:
        raise UserError(f"{path}: no prompts in this file")
    return prompts


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if None in row:
                raise UserError(f"{path}:{reader.line_num}: more fields than the header has")
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}") from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # not splitlines: U+2028 and its like may stand inside a JSON string
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            value = json.loads(row)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{line}: not JSON: {error.msg}") from None
        if not isinstance(value, dict):
            raise UserError(f"{path}:{line}: expected an object with a field 'prompt'")
        yield line, value


def _prompt(path: Path, line: int, row: Mapping[str, Any]) -> Prompt:
    values: dict[str, str] = {}
    for name in _FIELDS:
        value = row.get(name)
        if value is not None and not isinstance(value, str | int):
            raise UserError(f"{path}:{line}: field {name!r} must be text")
        values[name] = " ".join(str(value).split()) if value is not None else ""
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
