"""The training loop: seeded, checked at every step, the same bits in any process."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spqr_checks.choices import Profile
from spqr_checks.finetuning.examples import Examples
from spqr_checks.finetuning.objectives.base import Objective
from spqr_checks.finetuning.schedule import Block

Report: TypeAlias = Callable[[int, int, float], None]
"""Called after each step with the step (from 1), the number of steps and the loss."""

_AVERAGED = 50


class DivergedError(ArithmeticError):
    """Loss, gradients or weights became NaN or infinite; there is nothing to save."""


class Loop:
    """AdamW (0.9, 0.999) on the mean squared error, one block of the data after another.

    Every random number comes from one generator on the CPU, in a fixed order, so that neither
    device nor process decides it.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        parameters: Sequence[nn.Parameter],
        examples: Examples,
        objective: Objective,
        profile: Profile,
        *,
        seed: int,
        steps: int,
        autocast: bool = False,
        report: Report | None = None,
    ) -> None:
        """Prepares the loop.

        Args:
            parameters: what is trained, float32; the rest of the denoiser stays as it is.
            steps: of all blocks together; only reported.
            autocast: whether to compute in bfloat16.
        """
        self.denoiser = denoiser
        self.parameters = list(parameters)
        self.examples = examples
        self.objective = objective
        self.profile = profile
        self.steps = steps
        self.autocast = autocast
        self.report = report
        self.step = 0
        self.device = self.parameters[0].device
        self._generator = torch.Generator().manual_seed(seed)
        self._optimiser = torch.optim.AdamW(
            self.parameters,
            profile.learning_rate,
            betas=(0.9, 0.999),
            weight_decay=profile.weight_decay,
            fused=True,
        )
        self._recent: deque[float] = deque(maxlen=_AVERAGED)

    @property
    def loss(self) -> float:
        """Mean over the last 50 steps; a single one depends mostly on its timesteps."""
        return fmean(self._recent)

    def run(self, block: Block) -> None:
        """Trains on one block. Raises DivergedError as soon as a value is not finite."""
        for index in self._batches(block):
            loss = self._update(index)
            self._recent.append(loss)
            self.step += 1
            if self.report is not None:
                self.report(self.step, self.steps, loss)
        # gradients were finite, but the last update may have overflowed
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters):
            raise DivergedError(self._advice("a weight"))

    def _batches(self, block: Block) -> Iterator[Tensor]:
        """Indices of one step's images; a pass ends within a step if it does not divide evenly."""
        size = self.profile.images_per_step
        queue = torch.empty(0, dtype=torch.long)
        for _ in range(block.steps):
            while len(queue) < size:
                shuffled = torch.randperm(block.stop - block.start, generator=self._generator)
                queue = torch.cat([queue, shuffled + block.start])
            yield queue[:size]
            queue = queue[size:]

    def _update(self, index: Tensor) -> float:
        profile, generator = self.profile, self._generator
        latents = self.examples.latents[index]
        noise = torch.randn(latents.shape, generator=generator)
        t = self.objective.times(len(index), generator)
        dropped = torch.rand(len(index), generator=generator) < profile.caption_dropout
        rows = torch.where(dropped, 0, self.examples.rows[index])
        for group in self._optimiser.param_groups:
            group["lr"] = profile.learning_rate * min(1.0, (self.step + 1) / (profile.warmup + 1))
        self._optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for part in torch.split(torch.arange(len(index)), profile.batch):
            loss = self._loss(latents[part], noise[part], t[part], rows[part])
            loss = loss * (len(part) / len(index))
            total += loss.item()
            if not math.isfinite(total):
                raise DivergedError(self._advice("the loss"))
            torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(self.parameters, profile.clip)
        if not math.isfinite(norm.item()):
            raise DivergedError(self._advice("a gradient"))
        self._optimiser.step()
        return total

    def _loss(self, latents: Tensor, noise: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        latents, noise, t = (x.to(self.device) for x in (latents, noise, t))
        noisy = self.objective.noisy(latents, noise, t)
        conditions = self.examples.conditions
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            predicted = conditions.predict(self.denoiser, noisy, t, rows)
        return F.mse_loss(predicted.float(), self.objective.target(latents, noise, t))

    def _advice(self, what: str) -> str:
        return (
            f"fine-tuning diverged: {what} is not finite in step {self.step + 1} of {self.steps}, "
            f"so it was not saved; try a learning rate below {self.profile.learning_rate:g}"
        )
