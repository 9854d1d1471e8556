"""Data as the denoiser sees them: latents and caption embeddings, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image, ImageOps
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.families.base import BATCH, Conditions
from spqr_checks.finetuning.families.registry import family_of
from spqr_checks.hashing import Json
from spqr_checks.models.remembered import recalled, remembering


@dataclass(frozen=True)
class Examples:
    """A data set ready for training, in main memory.

    Attributes:
        latents: shifted and scaled means of the autoencoder's posterior, float32, (n, c, h, w).
        rows: each image's row in ``conditions``, shape (n,); row 0 is the empty caption.
        conditions: embeddings of the distinct captions.
    """

    latents: Tensor
    rows: Tensor
    conditions: Conditions


def encode(
    pipe: DiffusionPipeline, data: CaptionedImages, resolution: int | None = None
) -> Examples:
    """Encodes a data set with the pipeline's own autoencoder and text encoders, once for all.

    Images are scaled and cropped in the middle to ``image_size``. A latent is the mean of its
    posterior, not a sample: a sample drawn once would stay for all epochs.

    Raises:
        UserError: for a pipeline of no known family, or a resolution that it cannot take.
        ArithmeticError: for latents or embeddings that are not finite.
    """
    size = image_size(pipe, resolution)
    distinct = list(dict.fromkeys(data.captions))
    row_of = {caption: row for row, caption in enumerate(distinct, start=1)}
    asked: list[Json] = ["latents", *size, data.pictures_digest()]
    (mean,) = recalled({"vae": pipe.vae}, asked, lambda: (_means(pipe, data.images, size),))
    config = pipe.vae.config
    shift = getattr(config, "shift_factor", None) or 0.0
    assert mean is not None
    latents = (mean - shift) * config.scaling_factor
    if not bool(torch.isfinite(latents).all()):
        raise ArithmeticError("the latents of the fine-tuning data are not finite")
    with remembering(pipe):
        conditions = family_of(pipe).encode(pipe, distinct, size)
    rows = torch.tensor([row_of[caption] for caption in data.captions])
    return Examples(latents, rows, conditions)


def image_size(pipe: DiffusionPipeline, resolution: int | None = None) -> tuple[int, int]:
    """Height and width in pixels: a square of that resolution, or what the pipeline draws itself.

    Raises UserError for a pipeline of no known family, or a resolution that it cannot take.
    """
    family = family_of(pipe)
    if resolution is None:
        return family.own_size(pipe)
    grid = family.grid(pipe)
    if resolution % grid:
        raise UserError(
            f"{type(pipe).__name__} cannot be fine-tuned at a resolution of {resolution} pixels; "
            f"give a multiple of {grid}"
        )
    return resolution, resolution


@torch.no_grad()
def _means(pipe: DiffusionPipeline, images: Sequence[Image.Image], size: tuple[int, int]) -> Tensor:
    height, width = size
    parts = []
    with _in_float32(pipe.vae):
        for first in range(0, len(images), BATCH):
            pixels = np.stack(
                [
                    np.asarray(
                        ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS), np.float32
                    )
                    for image in images[first : first + BATCH]
                ]
            )
            values = torch.from_numpy(pixels / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
            mean = pipe.vae.encode(values.to(pipe.vae.device)).latent_dist.mode()
            parts.append(mean.cpu())
    return torch.cat(parts)


@contextmanager
def _in_float32(module: nn.Module) -> Iterator[None]:
    """SDXL's autoencoder overflows in float16; widening and narrowing back loses nothing."""
    dtype = next(module.parameters()).dtype
    if dtype == torch.float32:
        yield
        return
    module.float()
    try:
        yield
    finally:
        module.to(dtype)
