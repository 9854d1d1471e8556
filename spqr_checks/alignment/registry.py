"""Alignment methods by name. A new method is one new file in this folder.

The file is named after the method (``modular_lora.py``: ``modular-lora``) and defines ``METHOD``;
what several methods share lies in ``parts``. No method's file imports torch at its top.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks import alignment
from spqr_checks.alignment.method import Method
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.models.guidance.base import Guidance

_NOT_METHODS = frozenset({"registry", "request", "method", "parts"})

NAMES = tuple(
    sorted(
        m.name.replace("_", "-")
        for m in pkgutil.iter_modules(alignment.__path__)
        if m.name not in _NOT_METHODS
    )
)
"""Names of all methods."""


def method(name: str) -> Method[Any]:
    """The method of that name. Raises UserError, listing the names there are."""
    if name not in NAMES:
        raise UserError(f"unknown alignment method {name!r}; there are: {', '.join(NAMES)}")
    found = import_module(f"{alignment.__name__}.{name.replace('-', '_')}").METHOD
    assert isinstance(found, Method)
    return found


def recorded_guidance(folder: Path) -> Guidance | None:
    """The guidance that a method wrote; None for weights and adapters. UserError if unreadable."""
    from spqr_checks.models.guidance.registry import FILE, load_guidance

    return load_guidance(folder) if (folder / FILE).exists() else None


def apply_alignment(pipe: DiffusionPipeline, folder: Path) -> None:
    """Puts what a method wrote onto the pipeline that it was made from.

    An adapter is merged: the result is an ordinary set of weights, which samples as fast as the
    base and can be fine-tuned in every way.

    Guidance is attached: the weights stay the base's, and drawing is steered.

    Raises:
        UserError: the folder holds no entry or several, it is for another architecture, or it is
            a sealed safety adapter that is not whole or not for this base.
    """
    from spqr_checks.alignment.parts import modular
    from spqr_checks.models import adapters, weights

    modular.verify(pipe, folder)
    kinds = {
        "an adapter": "adapter.safetensors",
        "weights": "denoiser.safetensors",
        "guidance": "guidance.json",
    }
    found = [kind for kind, file in kinds.items() if (folder / file).exists()]
    if len(found) != 1:
        here = f"both {' and '.join(found)}" if found else f"neither {' nor '.join(kinds)}"
        raise UserError(f"{folder}: an alignment entry is of one kind, here are {here}")
    match found[0]:
        case "an adapter":
            adapters.load_adapter(pipe, folder, "alignment")
            adapters.merge(pipe)
        case "weights":
            weights.load_denoiser(pipe, folder)
        case "guidance":
            from spqr_checks.models.guidance.attachment import attach_guidance
            from spqr_checks.models.guidance.registry import load_guidance

            attach_guidance(pipe, load_guidance(folder))
