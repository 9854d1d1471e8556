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
    Parts,
    TransformerConditions,
    embedded,
    refuse_channels,
)
from spqr_checks.finetuning.objectives import Denoising
from spqr_checks.models import adapters


@dataclass(frozen=True)
class PixArtConditions(TransformerConditions):
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

    def inputs(self, unguided: PixArtConditions) -> dict[str, Any]:
        """Token embeddings with their masks, of both sides of guidance; the size is kept."""
        return {
            "negative_prompt": None,
            "prompt_embeds": self.hidden,
            "prompt_attention_mask": self.mask,
            "negative_prompt_embeds": unguided.hidden,
            "negative_prompt_attention_mask": unguided.mask,
            "use_resolution_binning": False,
        }


class PixArt(OnTransformer):
    """The denoising loss on the noise alone, as in PixArt-Σ's own script for LoRAs.

    The networks were trained to predict the variance of each step as well (Nichol & Dhariwal
    2021), by a second loss that fine-tuning leaves out; samplers ignore those channels.
    """

    targets = adapters.TARGETS
    cross_attention = CROSS_ATTENTION
    parts = Parts(
        readers=r"\battn2\.(to_k|to_v)$",
        attention=r"\battn2\.",
        keys=r"\battn2\.(to_k|to_v)\.",
        ends=("proj_out.", "scale_shift_table", "adaln_single."),
        attention_targets=tuple(f"attn2.{name}" for name in adapters.TARGETS),
        keys_targets=("attn2.to_k", "attn2.to_v"),
        other_targets=(
            *(f"attn1.{name}" for name in adapters.TARGETS),
            "ff.net.0.proj",
            "ff.net.2",
        ),
        self_targets=tuple(f"attn1.{name}" for name in adapters.TARGETS),
    )

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

    def last_words(self, pipe: DiffusionPipeline, captions: Sequence[str]) -> Tensor:
        """In T5's tokens, by their mask."""
        mask = self.encode(pipe, captions, self.own_size(pipe)).mask[1:]
        return (mask.sum(1, keepdim=True) - 2).clamp(min=0).long()


FAMILY = PixArt()
