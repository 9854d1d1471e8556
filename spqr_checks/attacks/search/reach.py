"""Which text encoders of a pipeline a search can steer, by its model_index.json alone. Light.

A search looks for one row of tokens, so it steers encoders that share a vocabulary; the others of
the pipeline read the same row as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spqr_checks.attacks.attack import Reads
from spqr_checks.attacks.registry import Chosen
from spqr_checks.errors import UserError, refuse_all

_CLIP = ("CLIPTextModel", "CLIPTextModelWithProjection")
_T5 = ("T5EncoderModel",)
_MASKED = "PixArt"
"""Its encoder is told which tokens are padding by what was tokenised, not by what is steered."""


def lead(index: Mapping[str, Any], reads: Reads, attack: str) -> tuple[str, ...]:
    """Names of the text encoders that a search steers.

    CLIP's where the denoiser reads their tokens (Stable Diffusion 1, 2, XL, 3). Flux takes tokens
    from T5 and only a pooled vector from CLIP.

    Raises:
        UserError: for a pipeline without such encoders.
    """
    name = str(index.get("_class_name", "this pipeline"))
    parts = {
        part: str(entry[1])
        for part, entry in index.items()
        if part.startswith("text_encoder") and isinstance(entry, list) and entry[1]
    }
    clip = tuple(part for part, found in sorted(parts.items()) if found in _CLIP)
    t5 = tuple(part for part, found in sorted(parts.items()) if found in _T5)
    tokens = t5 if name.startswith("Flux") else clip
    found = clip if reads == "pooled" else tokens
    if not found or name.startswith(_MASKED):
        there = ", ".join(parts.values()) or "none"
        wanted = "a CLIP text encoder" if reads == "pooled" else "text encoders that it can steer"
        raise UserError(
            f"attack {attack!r} needs {wanted} (Stable Diffusion 1, 2, XL, 3, Flux); "
            f"{name} has {there}. Leave the attack out, or replay a file."
        )
    return found


def refuse_denoiser(index: Mapping[str, Any], attack: str, through: Sequence[str]) -> None:
    """UserError for a denoiser of another class than those that the attack goes through."""
    found = [
        str(entry[1])
        for part in ("unet", "transformer")
        if isinstance(entry := index.get(part), list)
    ]
    if not any(name in through for name in found):
        there = ", ".join(found) or "none that is known"
        raise UserError(
            f"attack {attack!r} goes through the denoiser ({', '.join(through)}); here it is "
            f"{there}. Leave the attack out, or replay a file."
        )


def refuse_unreachable(attacks: Sequence[Chosen], folder: Path) -> None:
    """Raises UserError, all at once, for attacks that cannot be led against a pipeline's folder.

    A folder whose model_index.json cannot be read is refused where it is loaded.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(index, dict):
        return
    problems: list[str] = []
    for found in attacks:
        try:
            if found.attack.reads != "nothing":
                lead(index, found.attack.reads, found.name)
            if found.attack.through:
                refuse_denoiser(index, found.name, found.attack.through)
        except UserError as error:
            problems += error.problems
    refuse_all(problems)
