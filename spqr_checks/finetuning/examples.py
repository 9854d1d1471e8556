"""Data as the denoiser sees them: latents and caption embeddings, computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from spqr_checks.finetuning.captioned import CaptionedImages

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_BATCH = 8
"""Images or captions that are encoded together; fixed, since it can change the last bits."""


@dataclass(frozen=True)
class Conditions:
    """What the denoiser is told beside latents and time, one row for each distinct caption.

    Attributes:
        hidden: states of the text encoder, shape (rows, tokens, width).
        pooled: SDXL's pooled text embedding, shape (rows, width), or None.
        time_ids: SDXL's sizes and crop (original, crop, target), shape (6,), or None.
    """

    hidden: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    def select(self, rows: Tensor, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Keyword arguments of a UNet's forward for a batch."""
        arguments: dict[str, Any] = {
            "encoder_hidden_states": self.hidden[rows].to(device, dtype),
        }
        if self.pooled is not None and self.time_ids is not None:
            arguments["added_cond_kwargs"] = {
                "text_embeds": self.pooled[rows].to(device, dtype),
                "time_ids": self.time_ids.expand(len(rows), -1).to(device, dtype),
            }
        return arguments


@dataclass(frozen=True)
class Examples:
    """A data set ready for training, in main memory.

    Attributes:
        latents: scaled means of the autoencoder's posterior, float32, shape (n, c, h, w).
        rows: each image's row in ``conditions``, shape (n,); row 0 is the empty caption.
        conditions: embeddings of the distinct captions.
    """

    latents: Tensor
    rows: Tensor
    conditions: Conditions


def encode(pipe: DiffusionPipeline, data: CaptionedImages) -> Examples:
    """Encodes a data set with the pipeline's own autoencoder and text encoders.

    Images are scaled and cropped in the middle to the size that the pipeline draws. A latent is
    the mean of its posterior, not a sample: a sample drawn once would stay for all epochs.

    Raises:
        ArithmeticError: for latents or embeddings that are not finite.
    """
    distinct = list(dict.fromkeys(data.captions))
    row_of = {caption: row for row, caption in enumerate(distinct, start=1)}
    examples = Examples(
        latents=_latents(pipe, data.images),
        rows=torch.tensor([row_of[caption] for caption in data.captions]),
        conditions=_conditions(pipe, distinct),
    )
    for name, tensor in (
        ("latents", examples.latents),
        ("caption embeddings", examples.conditions.hidden),
    ):
        if not bool(torch.isfinite(tensor).all()):
            raise ArithmeticError(f"the {name} of the fine-tuning data are not finite")
    return examples


def image_size(pipe: DiffusionPipeline) -> tuple[int, int]:
    """Height and width in pixels that the pipeline draws unless told otherwise."""
    size = pipe.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    factor = int(pipe.vae_scale_factor)
    return int(height) * factor, int(width) * factor


@torch.no_grad()
def _latents(pipe: DiffusionPipeline, images: Sequence[Image.Image]) -> Tensor:
    height, width = image_size(pipe)
    config = pipe.vae.config
    parts = []
    with _in_float32(pipe.vae):
        for first in range(0, len(images), _BATCH):
            pixels = np.stack(
                [
                    np.asarray(
                        ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS), np.float32
                    )
                    for image in images[first : first + _BATCH]
                ]
            )
            values = torch.from_numpy(pixels / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
            mean = pipe.vae.encode(values.to(pipe.vae.device)).latent_dist.mode()
            parts.append(mean.cpu())
    shift = getattr(config, "shift_factor", None) or 0.0
    latents: Tensor = (torch.cat(parts) - shift) * config.scaling_factor
    return latents


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


@torch.no_grad()
def _conditions(pipe: DiffusionPipeline, captions: Sequence[str]) -> Conditions:
    empty_hidden, empty_pooled = _embed(pipe, [""], negative=True)
    hidden, pooled = [empty_hidden], [empty_pooled]
    for first in range(0, len(captions), _BATCH):
        states, projected = _embed(pipe, list(captions[first : first + _BATCH]))
        hidden.append(states)
        pooled.append(projected)
    rows = torch.cat(hidden)
    if empty_pooled is None:
        return Conditions(rows)
    height, width = image_size(pipe)
    time_ids = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
    return Conditions(rows, torch.cat([p for p in pooled if p is not None]), time_ids)


def _embed(
    pipe: DiffusionPipeline, captions: list[str], negative: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Hidden states and pooled embedding (SDXL), as the pipeline itself would condition on them.

    ``negative`` gives the pipeline's unconditional embedding, which SDXL sets to zero.
    """
    states, negative_states, *pooled = pipe.encode_prompt(
        captions,
        device=pipe.unet.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=negative,
    )
    chosen = [negative_states, *pooled[1:]] if negative else [states, *pooled[:1]]
    return chosen[0].cpu(), chosen[1].cpu() if pooled else None
