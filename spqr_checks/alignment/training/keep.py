"""Prompts whose images are to stay: the batches at which a training holds the student."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.embeddings import Conditions
from spqr_checks.alignment.training.erasing_options import ErasingOptions
from spqr_checks.alignment.training.latents import Noiser
from spqr_checks.alignment.training.pools import Pool


def prompts_to_keep(request: AlignmentRequest) -> tuple[list[str], int]:
    """Prompts to keep, each once and the look-alikes first, and the number of look-alikes."""
    near = list(dict.fromkeys(request.lookalikes))
    return near + [p for p in request.keep if p not in set(near)], len(near)


@dataclass(frozen=True)
class Keep:
    """Prompts to keep with latents that the base drew for them.

    Attributes:
        prompts: all of them, encoded; the first ``near`` are look-alikes.
        pool: latents of some of them, in their order.
    """

    prompts: Conditions
    near: int
    unconditional: Conditions
    pool: Pool
    options: ErasingOptions
    noiser: Noiser
    generator: torch.Generator

    def batch(self) -> tuple[Conditions, Tensor, Tensor]:
        """Prompts, x_t and t of one random batch; some prompts are dropped to ""."""
        options, generator, total = self.options, self.generator, len(self.pool)
        n = options.keep_batch or options.batch
        pick = torch.randint(0, total, (n,), generator=generator)
        near = int((self.pool.shows < self.near).sum())
        if 0 < near < total:
            from_near = torch.rand(n, generator=generator) < options.lookalike_share
            others = torch.randint(near, total, (n,), generator=generator)
            close = torch.randint(0, near, (n,), generator=generator)
            pick = torch.where(from_near, close, others)
        shown, latents = self.pool.at(pick)
        x, t = self.noiser(latents, generator)
        named = torch.rand(n, generator=generator) >= options.keep_unconditional
        prompts = self.prompts[shown.to(latents.device)]
        return prompts.where(named.to(latents.device), self.unconditional), x, t
