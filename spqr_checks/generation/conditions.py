"""Prompts as a UNet sees them: token embeddings, and pooled ones where the model wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

_BATCH = 32


@dataclass(frozen=True)
class Conditions:
    """Encoded prompts.

    Attributes:
        hidden: token embeddings, shape (prompts, tokens, width).
        pooled: pooled embeddings, shape (prompts, width), if the pipeline makes them (SDXL).
    """

    hidden: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, index: Tensor | slice) -> Conditions:
        return Conditions(self.hidden[index], None if self.pooled is None else self.pooled[index])

    def repeated(self, n: int) -> Conditions:
        """Every prompt ``n`` times."""
        pooled = None if self.pooled is None else self.pooled.repeat_interleave(n, 0)
        return Conditions(self.hidden.repeat_interleave(n, 0), pooled)

    def where(self, mask: Tensor, other: Conditions) -> Conditions:
        """These prompts where the mask holds, else those of ``other`` (one or as many)."""
        hidden = torch.where(mask[:, None, None], self.hidden, other.hidden)
        if self.pooled is None or other.pooled is None:
            return Conditions(hidden)
        return Conditions(hidden, torch.where(mask[:, None], self.pooled, other.pooled))


def joined(parts: Sequence[Conditions]) -> Conditions:
    """Several batches of prompts as one."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    hidden = torch.cat([part.hidden for part in parts])
    return Conditions(hidden, torch.cat(pooled) if pooled else None)


@torch.no_grad()
def encode(pipe: DiffusionPipeline, prompts: Sequence[str]) -> Conditions:
    """Encodes prompts by the pipeline's own text encoders, a fixed number at a time."""
    parts: list[Conditions] = []
    for start in range(0, len(prompts), _BATCH):
        encoded = pipe.encode_prompt(
            prompt=list(prompts[start : start + _BATCH]),
            device=pipe.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        # Stable Diffusion: (hidden, negative); XL: (hidden, negative, pooled, negative pooled)
        parts.append(Conditions(encoded[0], encoded[2] if len(encoded) > 2 else None))
    return joined(parts)


@torch.no_grad()
def unguided(pipe: DiffusionPipeline) -> Conditions:
    """What guidance takes for no prompt, one row: with SDXL zeros, else the encoding of ""."""
    _, hidden, *pooled = pipe.encode_prompt(
        prompt=[""], device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    return Conditions(hidden, pooled[1] if pooled else None)
