"""The forward process of a model's ordinary loss, on batches of latents."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.finetuning.objectives import Objective

ErrorOf = Literal["native", "epsilon"]
_LEARNT = ("epsilon", "v_prediction", "flow")


class Noiser:
    """Noises latents by an objective.

    Times are those of ordinary training, or as likely as ``odds`` says, one number ≥ 0 for each
    time of the schedule.
    """

    odds: Tensor | None = None

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.timesteps = len(objective.schedule)

    def __call__(
        self, latents: Tensor, generator: torch.Generator, t: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Noises each latent to a time of its own, or to those given; returns (x_t, t)."""
        x, t, _ = self._noised(latents, generator, t)
        return x, t

    def with_truth(
        self, latents: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(x_t, t) and what the ordinary loss compares with: the noise, or the velocity.

        Raises UserError: the network predicts something else.
        """
        kind = self.objective.prediction_type
        if kind not in _LEARNT:
            raise UserError(
                f"the model predicts {kind!r}; this loss needs one that predicts the noise "
                "('epsilon') or the velocity ('v_prediction')"
            )
        x, t, noise = self._noised(latents, generator)
        return x, t, self.objective.target(latents, noise, t)

    def factor(self, error: ErrorOf, t: Tensor) -> Tensor:
        """What squared errors of the network's own target are multiplied by, in the shape of t.

        1 for ``native``; ``epsilon`` turns them into squared errors of the noise.
        """
        factor = self.objective.noise_factor(t)
        return factor if error == "epsilon" else torch.ones_like(factor)

    def _noised(
        self, latents: Tensor, generator: torch.Generator, t: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(latents)
        if t is None and self.odds is None:
            t = self.objective.times(n, generator)
        elif t is None:
            assert self.odds is not None
            place = torch.multinomial(self.odds, n, replacement=True, generator=generator)
            t = self.objective.schedule[place]
        noise = torch.randn(latents.shape, generator=generator)
        t, noise = t.to(latents.device), noise.to(latents.device)
        return self.objective.noisy(latents, noise, t), t, noise
