"""Prompt files of every known format, and what was made of each."""

from __future__ import annotations

from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.prompts.formats.reading import Reading, Table
from spqr_checks.prompts.formats.registry import format_named, format_of
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.rows import read_rows


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of one file, of whatever format; errors as in ``read_file``."""
    return list(read_file(path).prompts)


def read_file(path: Path, format: str = "", concept: str = "", doubtful: bool = False) -> Reading:
    """Reads one prompt file.

    Args:
        format: its name; ``""`` goes by the fields of the first row.
        concept: what all its prompts ask for, where its format does not say.
        doubtful: whether translations that are marked as doubtful count.

    Raises:
        UserError: for a fault, naming the file, the line and the field; for a file that gives no
            prompt.
    """
    table = Table(path, read_rows(path), concept, doubtful)
    chosen = format_named(format) if format else format_of(table)
    if concept and not chosen.takes_concept:
        raise UserError(
            f"{chosen.name}:{concept}={path}: files of this format name their concepts themselves; "
            f"write {chosen.name}={path}"
        )
    reading = chosen.read(table)
    if not reading.prompts:
        reasons = ", ".join(f"{n} {reason}" for reason, n in reading.reasons.items())
        raise UserError(f"{path}: no prompts in this file ({reasons})")
    return reading
