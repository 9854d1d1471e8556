"""Alignment methods by name. A new method is one new file in this folder.

The file is named after the method (``modular_lora.py``: ``modular-lora``) and defines ``METHOD``;
what several methods share lies in ``training``. Other distributions add theirs through
``spqr_checks.methods``. No method's file imports torch at its top.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks.alignment.method import Method
from spqr_checks.errors import UserError
from spqr_checks.registry import Registry

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.generation.guidance.base import Guidance

METHODS: Registry[Method[Any]] = Registry(
    "alignment method",
    "spqr_checks.alignment",
    "METHOD",
    "spqr_checks.methods",
    lambda found: isinstance(found, Method),
)


def method(name: str, objects: bool = True) -> Method[Any]:
    """The method of that name, with the digest of its code where it is not ours.

    Raises UserError as `Registry.get`, and for a ``module:object`` that calls itself as a method
    that there is already.
    """
    found = METHODS.get(name, objects)
    if name in METHODS.names():
        found = replace(found, name=name)  # the name that its record can be looked up by
    elif found.name in METHODS.names() and METHODS.place(found.name).object != name:
        raise UserError(
            f"alignment method {name!r} calls itself {found.name!r}, which is the name of "
            f"{METHODS.place(found.name)}; rename it"
        )
    return replace(found, added_code=METHODS.code(name))


def recorded_guidance(folder: Path) -> Guidance | None:
    """The guidance that a method wrote; None for weights and adapters. UserError if unreadable."""
    from spqr_checks.generation.guidance.registry import FILE, load_guidance

    return load_guidance(folder) if (folder / FILE).exists() else None


def apply_alignment(pipe: DiffusionPipeline, folder: Path) -> None:
    """Puts what a method wrote onto the pipeline that it was made from.

    An adapter is merged: the result is an ordinary set of weights, which samples as fast as the
    base and can be fine-tuned in every way.

    Guidance is attached: the weights stay the base's, and drawing is steered. Raises UserError: the
    folder holds no entry or several, it is for another architecture, or it is a sealed safety
    adapter that is not whole or not for this base.
    """
    from spqr_checks.alignment import modular
    from spqr_checks.models import adapters, weights

    modular.verify(pipe, folder)
    kinds = {
        "an adapter": "pytorch_lora_weights.safetensors",
        "weights": "denoiser.safetensors",
        "a text encoder": "text_encoder.safetensors",
        "guidance": "guidance.json",
    }
    found = [kind for kind, file in kinds.items() if (folder / file).exists()]
    if len(found) != 1:
        here = f"{', '.join(found)} at once" if found else f"neither {' nor '.join(kinds)}"
        raise UserError(f"{folder}: an alignment entry is of one kind, here are {here}")
    match found[0]:
        case "an adapter":
            adapters.load_adapter(pipe, folder, "alignment")
            adapters.merge(pipe)
        case "weights":
            weights.load_denoiser(pipe, folder)
        case "a text encoder":
            weights.load_text_encoder(pipe, folder)
        case "guidance":
            from spqr_checks.generation.guidance.base import attach_guidance
            from spqr_checks.generation.guidance.registry import load_guidance

            attach_guidance(pipe, load_guidance(folder))
