"""Guidances by kind, as text and as an entry on disk. A new kind is one new file in this folder.

The file is named after the kind (``safe_latent_blend.py``: ``safe-latent-blend``) and defines
``GUIDANCE``, the class. No such file imports torch at its top.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from spqr_checks.errors import UserError, refused_field
from spqr_checks.generation.guidance.base import Guidance
from spqr_checks.registry import Registry

FILE = "guidance.json"
_AGAIN = "Align again."

GUIDANCES: Registry[type[Guidance]] = Registry(
    "kind of guidance",
    "spqr_checks.generation.guidance",
    "GUIDANCE",
    "spqr_checks.guidance",
    lambda found: isinstance(found, type) and issubclass(found, Guidance),
)


def from_json(text: str, where: str) -> Guidance:
    """The guidance that ``Guidance.to_json`` wrote; ``where`` is named in errors.

    Raises UserError for text that is no JSON object, an unknown kind, and fields that are missing,
    unknown or of the wrong type.
    """
    try:
        record = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON: {error}. {_AGAIN}") from None
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str):
        raise UserError(f"{where}: names no kind of guidance. {_AGAIN}")
    try:
        found = GUIDANCES.get(kind, objects=False)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    try:
        return found.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: {refused_field(error)}. {_AGAIN}") from None


def save_guidance(chosen: Guidance, folder: Path) -> None:
    """Writes an entry, ``folder/guidance.json`` and what else the guidance needs."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen.write_files(folder)
    (folder / FILE).write_text(chosen.to_json(), encoding="utf-8")


def load_guidance(folder: Path) -> Guidance:
    """Reads an entry. Raises UserError as ``from_json``, and for an unreadable file."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. {_AGAIN}") from None
    return from_json(text, str(path)).with_files(folder)
