"""Pools: latents drawn once by the base, from which every training step takes a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spqr_checks.alignment.training.latents import draw
from spqr_checks.choices import Sampler

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Pool:
    """Finished latents and what they show.

    Attributes:
        latents: shape (n, channels, h, w), on the pipeline's device.
        shows: number of the prompt of each, in the list they were drawn for; on the CPU.
    """

    latents: Tensor
    shows: Tensor

    def __len__(self) -> int:
        return len(self.shows)

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Prompt numbers (on the CPU) and latents at some places of the pool."""
        return self.shows[places], self.latents[places.to(self.latents.device)]

    def pick(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Prompt numbers and latents of ``n`` random entries, with replacement."""
        return self.at(torch.randint(0, len(self), (n,), generator=generator))


def draw_pool(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    size: int,
    sampler: Sampler,
    *,
    guidance: float,
    seed: int,
    generator: torch.Generator,
    fill: bool = False,
) -> Pool:
    """Draws latents by the pipeline as it is now.

    Args:
        size: at most so many, of prompts chosen at random, each once.
        fill: where there are fewer prompts, exactly so many: the prompts in turn.
        seed: of the drawings; ``generator`` chooses the prompts.
    """
    if fill and len(prompts) < size:
        shows = torch.arange(size) % len(prompts)
    else:
        shows = torch.randperm(len(prompts), generator=generator)[:size].sort().values
    chosen = [prompts[i] for i in shows.tolist()]
    return Pool(draw(pipe, chosen, sampler, guidance, seed), shows)
