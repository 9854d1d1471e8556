"""Guidances by kind, as text and as an entry on disk. A new kind is one new file in this folder.

The file is named after the kind (``safe_latent_blend.py``: ``safe-latent-blend``) and defines
``GUIDANCE``, the class. No such file imports torch at its top.
"""

from __future__ import annotations

import json
import pkgutil
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from spqr_checks.errors import UserError, refused_field
from spqr_checks.models import guidance
from spqr_checks.models.guidance.base import Guidance

FILE = "guidance.json"
_NOT_KINDS = frozenset({"attachment", "base", "registry", "steering"})
_AGAIN = "Align again."

KINDS = tuple(
    sorted(
        m.name.replace("_", "-")
        for m in pkgutil.iter_modules(guidance.__path__)
        if m.name not in _NOT_KINDS
    )
)
"""Names of all kinds."""


def guidance_class(kind: str) -> type[Guidance]:
    """The class of that kind. Raises UserError, listing the kinds there are."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of guidance {kind!r}; there are: {', '.join(KINDS)}")
    found: type[Guidance] = import_module(f"{guidance.__name__}.{kind.replace('-', '_')}").GUIDANCE
    assert issubclass(found, Guidance)
    return found


def from_json(text: str, where: str) -> Guidance:
    """The guidance that ``Guidance.to_json`` wrote; ``where`` is named in errors.

    Raises:
        UserError: for text that is no JSON object, an unknown kind, and fields that are missing,
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
        found = guidance_class(kind)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    try:
        return found.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: {refused_field(error)}. {_AGAIN}") from None


def save_guidance(chosen: Guidance, folder: Path) -> None:
    """Writes an entry, ``folder/guidance.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(chosen.to_json(), encoding="utf-8")


def load_guidance(folder: Path) -> Guidance:
    """Reads an entry. Raises UserError as ``from_json``, and for an unreadable file."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. {_AGAIN}") from None
    return from_json(text, str(path))
