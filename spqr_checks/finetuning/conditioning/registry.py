"""The families that can be fine-tuned. A new one is one new file, named here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spqr_checks.errors import UserError
from spqr_checks.finetuning.conditioning.base import Family
from spqr_checks.finetuning.conditioning.flux import Flux
from spqr_checks.finetuning.conditioning.pixart import PixArt
from spqr_checks.finetuning.conditioning.stable_diffusion_3 import StableDiffusion3
from spqr_checks.finetuning.conditioning.unet import UNet

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FAMILIES: tuple[Family, ...] = (UNet(), StableDiffusion3(), Flux(), PixArt())


def family_of(pipe: DiffusionPipeline) -> Family:
    """The family of the pipeline's denoiser. Raises UserError if it belongs to none of them.

    Whether its scheduler fits is said by the family's ``objective``.
    """
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    family = next((family for family in FAMILIES if family.knows(denoiser)), None)
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
