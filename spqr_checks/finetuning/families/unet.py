"""UNets over the latents of an autoencoder: Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.finetuning.families.base import CROSS_ATTENTION, embedded, refuse_channels
from spqr_checks.finetuning.objectives import Denoising
from spqr_checks.generation.conditions import Conditions, encode, unguided
from spqr_checks.models import adapters


@dataclass(frozen=True)
class UNetConditions:
    """What a UNet is told beside latents and time, one row for each distinct caption.

    Attributes:
        hidden: states of the text encoder, shape (rows, tokens, width).
        pooled: SDXL's pooled text embedding, shape (rows, width), or None.
        time_ids: SDXL's sizes and crop (original, crop, target), shape (6,), or None.
    """

    hidden: Tensor
    pooled: Tensor | None = None
    time_ids: Tensor | None = None

    def predict(self, denoiser: nn.Module, noisy: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """Noise, velocity or latents, as the pipeline's scheduler says."""
        arguments: dict[str, Any] = {"encoder_hidden_states": self.hidden[rows].to(noisy)}
        if self.pooled is not None and self.time_ids is not None:
            arguments["added_cond_kwargs"] = {
                "text_embeds": self.pooled[rows].to(noisy),
                "time_ids": self.time_ids.expand(len(rows), -1).to(noisy),
            }
        predicted: Tensor = denoiser(
            noisy.contiguous(memory_format=torch.channels_last), t, **arguments
        ).sample
        return predicted


class UNet:
    """Stable Diffusion 1, 2 and XL and their relatives, conditioned on text alone."""

    targets = adapters.TARGETS
    cross_attention = CROSS_ATTENTION

    def knows(self, denoiser: object) -> bool:
        """Whether it is a UNet."""
        return isinstance(denoiser, UNet2DConditionModel)

    def objective(self, pipe: DiffusionPipeline) -> Denoising:
        """The denoising loss; UserError for conditions that only other pipelines give."""
        config = pipe.unet.config
        refuse_channels(pipe, config.in_channels, pipe.vae.config.latent_channels, "UNet")
        foreign = [
            field
            for field in ("class_embed_type", "num_class_embeds", "time_cond_proj_dim")
            if config.get(field) is not None
        ]
        foreign += ["addition_embed_type"] * (config.addition_embed_type not in (None, "text_time"))
        if foreign:
            raise UserError(
                f"{type(pipe).__name__} cannot be fine-tuned: {foreign[0]} is not supported"
            )
        return Denoising(pipe)

    def own_size(self, pipe: DiffusionPipeline) -> tuple[int, int]:
        """As the UNet's configuration says."""
        size = pipe.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        factor = int(pipe.vae_scale_factor)
        return int(height) * factor, int(width) * factor

    def grid(self, pipe: DiffusionPipeline) -> int:
        """One latent."""
        return int(pipe.vae_scale_factor)

    def encode(
        self, pipe: DiffusionPipeline, captions: Sequence[str], size: tuple[int, int]
    ) -> UNetConditions:
        """SDXL is told the size as that of the original and of the target, without a crop."""
        hidden, *pooled = embedded(
            captions,
            lambda part: _tensors(encode(pipe, part)),
            lambda _: _tensors(unguided(pipe)),
        )
        if not pooled:
            return UNetConditions(hidden)
        height, width = size
        time_ids = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
        return UNetConditions(hidden, pooled[0], time_ids)


def _tensors(prompts: Conditions) -> list[Tensor]:
    """Hidden states, and with SDXL the pooled embedding."""
    return [prompts.hidden] if prompts.pooled is None else [prompts.hidden, prompts.pooled]


FAMILY = UNet()
