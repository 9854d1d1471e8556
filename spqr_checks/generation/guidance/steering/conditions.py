"""Prompts as a UNet sees them, encoded by the pipeline's own text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Conditions:
    """Token states, shape (prompts, tokens, width); SDXL's pooled ones, shape (prompts, width)."""

    hidden: Tensor
    pooled: Tensor | None


@torch.no_grad()
def encode(pipe: DiffusionPipeline, prompts: Sequence[str]) -> Conditions:
    """Encodes prompts, all at once."""
    encoded = pipe.encode_prompt(
        prompt=list(prompts),
        device=pipe.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    # Stable Diffusion: (hidden, negative); XL: (hidden, negative, pooled, negative pooled)
    return Conditions(encoded[0], encoded[2] if len(encoded) > 2 else None)


def refuse_truncated(pipe: DiffusionPipeline, prompt: str, what: str) -> None:
    """UserError for a prompt of which the text encoders would not read the end."""
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipe, name, None)
        if tokenizer is None:
            continue
        length, limit = len(tokenizer(prompt).input_ids), int(tokenizer.model_max_length)
        if length > limit:
            raise UserError(
                f"{what} has {length} tokens, of which the text encoder reads {limit}; shorten "
                f"it: {prompt!r}"
            )
