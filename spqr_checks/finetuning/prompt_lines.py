"""Benign prompts from which the base draws its own fine-tuning images."""

from __future__ import annotations

from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.finetuning.tables import caption_of, read_rows
from spqr_checks.prompts.tables import READABLE, place, read_text


def read_benign_prompts(path: Path) -> list[str]:
    """Prompts of a table (CSV, JSON lines, JSON, Parquet), or one per line of any other file.

    Raises:
        UserError: for a missing or empty file, an empty prompt, or a row whose ``kind`` is not
            benign: what is measured must not be trained on.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; self:FILE needs a file of benign prompts")
    if path.suffix not in READABLE:
        prompts = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    else:
        prompts = []
        for line, row in read_rows(path):
            if row.get("kind", "benign") != "benign":
                at = place(path, line)
                raise UserError(f"{at}: kind is {row['kind']!r}; keep benign prompts only")
            prompts.append(caption_of(path, line, row))
    if not prompts:
        raise UserError(f"{path}: no prompts in this file; write one per line")
    return prompts
