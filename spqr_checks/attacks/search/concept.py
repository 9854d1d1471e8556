"""A concept as a direction in what the denoiser is told (Ring-A-Bell, equation 1).

Tsai et al., ICLR 2024 (arXiv 2310.10012). The pairs are ours: neutral sentences with and without
the concept's name.
"""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from spqr_checks.attacks.search.encoders import encoded

PAIRS = (
    ("{concept}", ""),
    ("a photo of {concept}", "a photo"),
    ("a picture of {concept}", "a picture"),
    ("a drawing of {concept}", "a drawing"),
    ("one {concept} on a table", "one on a table"),
    ("{concept} in front of a wall", "in front of a wall"),
    ("a large {concept}", "a large"),
    ("a small {concept}", "a small"),
)
"""With and without the concept."""


@torch.no_grad()
def concept_vectors(pipe: DiffusionPipeline, concept: str) -> list[Tensor]:
    """Mean differences of `PAIRS`: of tokens' states, (tokens, width), and of pooled ones, (width).

    The latter where the pipeline makes them.
    """
    sides = [encoded(pipe, [pair[i].format(concept=concept) for pair in PAIRS]) for i in (0, 1)]
    return [(with_it - without).mean(0) for with_it, without in zip(*sides, strict=True)]
