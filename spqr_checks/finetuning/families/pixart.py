"""PixArt-α and PixArt-Σ: a diffusion transformer with cross-attention to T5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline, PixArtTransformer2DModel
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.finetuning.families.base import (
    CROSS_ATTENTION,
    OnTransformer,
    embedded,
    refuse_channels,
)
from spqr_checks.finetuning.objectives import Denoising
from spqr_checks.models import adapters


@dataclass(frozen=True)
class PixArtConditions:
    """Embeddings of the distinct captions.

    Attributes:
        hidden: tokens of T5, shape (rows, tokens, width).
        mask: 1 for tokens, 0 for padding, shape (rows, tokens).
        size: height and width of the images in pixels, which some variants (α at 1024) are told.
    """

    hidden: Tensor
    mask: Tensor
    size: tuple[int, int]

    def predict(self, denoiser: nn.Module, noisy: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """The noise; the variance, where it is predicted too, is left out."""
        n = len(noisy)
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if denoiser.use_additional_conditions:
            height, width = self.size
            added["resolution"] = torch.tensor([[height, width]] * n).to(noisy)
            added["aspect_ratio"] = torch.tensor([[height / width]] * n).to(noisy)
        predicted: Tensor = denoiser(
            noisy,
            encoder_hidden_states=self.hidden[rows].to(noisy),
            encoder_attention_mask=self.mask[rows].to(noisy.device),
            timestep=t,
            added_cond_kwargs=added,
        ).sample
        return predicted[:, : noisy.shape[1]]


class PixArt(OnTransformer):
    """The denoising loss on the noise alone, as in PixArt-Σ's own script for LoRAs.

    The networks were trained to predict the variance of each step as well (Nichol & Dhariwal
    2021), by a second loss that fine-tuning leaves out; samplers ignore those channels.
    """

    targets = adapters.TARGETS
    cross_attention = CROSS_ATTENTION

    def knows(self, denoiser: object) -> bool:
        """Whether it is PixArt's transformer."""
        return isinstance(denoiser, PixArtTransformer2DModel)

    def objective(self, pipe: DiffusionPipeline) -> Denoising:
        """The denoising loss; UserError for other outputs than noise, or noise and variance."""
        config: Any = pipe.transformer.config
        takes, gives = config.in_channels, pipe.transformer.out_channels
        refuse_channels(pipe, takes, pipe.vae.config.latent_channels, "transformer")
        if gives not in (takes, 2 * takes):
            raise UserError(
                f"{type(pipe).__name__} cannot be fine-tuned: its transformer predicts {gives} "
                f"channels for {takes}; give one that predicts the noise, or noise and variance"
            )
        return Denoising(pipe)

    def encode(
        self, pipe: DiffusionPipeline, captions: Sequence[str], size: tuple[int, int]
    ) -> PixArtConditions:
        """By T5; never cleaned, as when images are drawn (see `generation`)."""

        def embed(part: list[str]) -> Sequence[Tensor]:
            hidden, mask, _, _ = pipe.encode_prompt(
                part,
                do_classifier_free_guidance=False,
                device=pipe.transformer.device,
                clean_caption=False,
            )
            return hidden, mask

        hidden, mask = embedded(captions, embed)
        return PixArtConditions(hidden, mask, size)


FAMILY = PixArt()
