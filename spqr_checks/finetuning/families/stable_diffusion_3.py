"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline, SD3Transformer2DModel
from torch import Tensor, nn

from spqr_checks.finetuning.families.base import (
    JOINT_ATTENTION,
    JOINT_PARTS,
    JOINT_TARGETS,
    OnTransformer,
    TransformerConditions,
    embedded,
    last_words,
    refuse_channels,
)
from spqr_checks.finetuning.objectives import FlowMatching

_T5_TOKENS = 256
"""The pipeline's default."""


@dataclass(frozen=True)
class StableDiffusion3Conditions(TransformerConditions):
    """Embeddings of the distinct captions.

    Attributes:
        hidden: tokens of both CLIP encoders, then of T5, shape (rows, tokens, width).
        pooled: of both CLIP encoders, shape (rows, width).
    """

    hidden: Tensor
    pooled: Tensor

    def predict(self, denoiser: nn.Module, noisy: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """The velocity."""
        predicted: Tensor = denoiser(
            hidden_states=noisy,
            timestep=t,
            encoder_hidden_states=self.hidden[rows].to(noisy),
            pooled_projections=self.pooled[rows].to(noisy),
        ).sample
        return predicted

    def inputs(self, unguided: StableDiffusion3Conditions) -> dict[str, Any]:
        """Token and pooled embeddings, of both sides of guidance."""
        return {
            "prompt_embeds": self.hidden,
            "pooled_prompt_embeds": self.pooled,
            "negative_prompt_embeds": unguided.hidden,
            "negative_pooled_prompt_embeds": unguided.pooled,
        }


class StableDiffusion3(OnTransformer):
    """Flow matching with logit-normal times, as the model was trained (arXiv 2403.03206)."""

    targets = JOINT_TARGETS
    cross_attention = JOINT_ATTENTION
    parts = JOINT_PARTS

    def knows(self, denoiser: object) -> bool:
        """Whether it is the transformer of Stable Diffusion 3."""
        return isinstance(denoiser, SD3Transformer2DModel)

    def objective(self, pipe: DiffusionPipeline) -> FlowMatching:
        """Flow matching; the fixed shift is the scheduler's."""
        channels = pipe.transformer.config.in_channels
        refuse_channels(pipe, channels, pipe.vae.config.latent_channels, "transformer")
        return FlowMatching(pipe, "logit-normal")

    def encode(
        self, pipe: DiffusionPipeline, captions: Sequence[str], size: tuple[int, int]
    ) -> StableDiffusion3Conditions:
        """By all encoders that the pipeline has; without T5 its tokens are zeros."""

        def embed(part: list[str]) -> Sequence[Tensor]:
            hidden, _, pooled, _ = pipe.encode_prompt(
                part, None, None, device=pipe.transformer.device, do_classifier_free_guidance=False
            )
            return hidden, pooled

        return StableDiffusion3Conditions(*embedded(captions, embed))

    def last_words(self, pipe: DiffusionPipeline, captions: Sequence[str]) -> Tensor:
        """In CLIP's tokens and, if the pipeline has T5, in those behind them."""
        clip = int(pipe.tokenizer_max_length)
        found = [last_words(pipe.tokenizer, captions, clip)]
        if pipe.text_encoder_3 is not None:
            found.append(clip + last_words(pipe.tokenizer_3, captions, _T5_TOKENS))
        return torch.stack(found, dim=1)


FAMILY = StableDiffusion3()
