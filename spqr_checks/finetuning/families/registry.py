"""The families that can be fine-tuned. A new one is one new file with ``FAMILY``. Light."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spqr_checks.errors import UserError
from spqr_checks.registry import Registry

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.finetuning.families.base import Family

FAMILIES: Registry[Family] = Registry(
    "model family",
    "spqr_checks.finetuning.families",
    "FAMILY",
    "spqr_checks.families",
    lambda found: hasattr(found, "knows") and hasattr(found, "objective"),
)


def family_of(pipe: DiffusionPipeline) -> Family:
    """The family of the pipeline's denoiser. Raises UserError if it belongs to none of them.

    Whether its scheduler fits is said by the family's ``objective``.
    """
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    family = next((known for known in _tried() if known.knows(denoiser)), None)
    if family is None or not hasattr(pipe, "encode_prompt"):
        raise UserError(
            f"{type(pipe).__name__} cannot be fine-tuned: only Stable Diffusion 1, 2, XL, 3 and "
            "3.5, Flux and PixArt and their relatives can"
        )
    if pipe.vae.config.get("latents_mean") is not None:
        raise UserError(
            f"{type(pipe).__name__} cannot be fine-tuned: latents_mean is not supported"
        )
    return family


def _tried() -> Iterator[Family]:
    for names in (FAMILIES.own, FAMILIES.added):
        yield from map(FAMILIES.get, names())
