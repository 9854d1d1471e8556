"""Flux, with an input for guidance (dev) and without (schnell)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline, FluxTransformer2DModel
from torch import Tensor, nn

from spqr_checks.finetuning.families.base import (
    JOINT_ATTENTION,
    JOINT_PARTS,
    JOINT_TARGETS,
    TransformerConditions,
    embedded,
    last_words,
    refuse_channels,
)
from spqr_checks.finetuning.objectives import FlowMatching

_PATCH = 2
_TIMES = 1000
"""The transformer takes times between 0 and 1."""

_T5_TOKENS = 512
"""The pipeline's default."""

GUIDANCE = 1.0
"""What a distilled model is told in training: no guidance, for that is what data are drawn from.

Diffusers' instructions for training say the same; the models draw at 3.5 all the same afterwards.
"""


def pack(latents: Tensor) -> Tensor:
    """Patches of 2×2 latents as tokens: (n, c, h, w) becomes (n, h/2 · w/2, 4c)."""
    n, c, h, w = latents.shape
    patches = latents.reshape(n, c, h // _PATCH, _PATCH, w // _PATCH, _PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * _PATCH * _PATCH)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``pack`` for latents of this height and width."""
    rows, columns = height // _PATCH, width // _PATCH
    patches = tokens.reshape(len(tokens), rows, columns, -1, _PATCH, _PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, height, width)


def positions(height: int, width: int) -> Tensor:
    """Of the tokens of packed latents: (0, row, column), shape (h/2 · w/2, 3)."""
    rows, columns = torch.arange(height // _PATCH), torch.arange(width // _PATCH)
    return torch.cartesian_prod(torch.zeros(1), rows.float(), columns.float())


@dataclass(frozen=True)
class FluxConditions(TransformerConditions):
    """Embeddings of the distinct captions.

    Attributes:
        hidden: tokens of T5, shape (rows, tokens, width).
        pooled: of CLIP, shape (rows, width).
    """

    hidden: Tensor
    pooled: Tensor

    def predict(self, denoiser: nn.Module, noisy: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """The velocity, unpacked."""
        config: Any = denoiser.config
        hidden = self.hidden[rows].to(noisy)
        guidance = torch.full((len(noisy),), GUIDANCE, device=noisy.device)
        predicted: Tensor = denoiser(
            hidden_states=pack(noisy),
            timestep=t.to(noisy.dtype) / _TIMES,
            guidance=guidance if config.guidance_embeds else None,
            pooled_projections=self.pooled[rows].to(noisy),
            encoder_hidden_states=hidden,
            txt_ids=torch.zeros((hidden.shape[1], 3)).to(noisy),
            img_ids=positions(*noisy.shape[-2:]).to(noisy),
        ).sample
        return unpack(predicted, *noisy.shape[-2:])

    def inputs(self, unguided: FluxConditions) -> dict[str, Any]:
        """Token and pooled embeddings; guidance is distilled and asks for no others."""
        del unguided
        return {"prompt_embeds": self.hidden, "pooled_prompt_embeds": self.pooled}


class Flux:
    """Flow matching with uniform times, as in diffusers' training script for it.

    How Black Forest Labs drew times in training is not published.
    """

    targets = JOINT_TARGETS
    cross_attention = JOINT_ATTENTION
    parts = JOINT_PARTS

    def knows(self, denoiser: object) -> bool:
        """Whether it is Flux's transformer."""
        return isinstance(denoiser, FluxTransformer2DModel)

    def objective(self, pipe: DiffusionPipeline) -> FlowMatching:
        """Flow matching; UserError for the variants that see a second image (fill, control)."""
        channels = pipe.transformer.config.in_channels // _PATCH**2
        refuse_channels(pipe, channels, pipe.vae.config.latent_channels, "transformer")
        return FlowMatching(pipe, "uniform")

    def own_size(self, pipe: DiffusionPipeline) -> tuple[int, int]:
        """A square, the same for every Flux: the pipeline's default."""
        size = int(pipe.default_sample_size) * int(pipe.vae_scale_factor)
        return size, size

    def grid(self, pipe: DiffusionPipeline) -> int:
        """One patch."""
        return int(pipe.vae_scale_factor) * _PATCH

    def encode(
        self, pipe: DiffusionPipeline, captions: Sequence[str], size: tuple[int, int]
    ) -> FluxConditions:
        """By CLIP (pooled) and T5 (tokens)."""

        def embed(part: list[str]) -> Sequence[Tensor]:
            hidden, pooled, _ = pipe.encode_prompt(part, device=pipe.transformer.device)
            return hidden, pooled

        return FluxConditions(*embedded(captions, embed))

    def last_words(self, pipe: DiffusionPipeline, captions: Sequence[str]) -> Tensor:
        """In T5's tokens."""
        return last_words(pipe.tokenizer_2, captions, _T5_TOKENS)[:, None]

    def seen(self, x: Tensor, t: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Unpacked; the pipeline divides times."""
        return unpack(x, *size), t * _TIMES

    def given(self, x: Tensor) -> Tensor:
        """Packed."""
        return pack(x)


FAMILY = Flux()
