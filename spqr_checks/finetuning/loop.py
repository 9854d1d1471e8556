"""The training loop: seeded, checked at every step, the same bits in any process."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spqr_checks.choices import Profile
from spqr_checks.finetuning.examples import Examples
from spqr_checks.finetuning.objectives import Objective
from spqr_checks.finetuning.schedule import Block

Report: TypeAlias = Callable[[int, int, float], None]
"""Called after each step with the step (from 1), the number of steps and the loss."""

_AVERAGED = 50


@contextmanager
def reproducible(seed: int, threads: int, device: torch.device) -> Iterator[None]:
    """Fixes threads, the global seed and algorithms; restores them afterwards.

    Args:
        seed: of torch's global generators, for layers that draw from them (dropout).
        threads: sums over several threads differ from sums over one.
    """
    threads_before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    lenient = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    # read by cuBLAS when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(True, warn_only=True)
            # else every new tensor is filled with NaN first, which only a faulty operator reads
            memory.fill_uninitialized_memory = False
            torch.backends.cudnn.benchmark = False
            torch.manual_seed(seed)
            yield
        finally:
            torch.backends.cudnn.benchmark = benchmark
            memory.fill_uninitialized_memory = fills
            torch.use_deterministic_algorithms(strict, warn_only=lenient)
            torch.set_num_threads(threads_before)


class DivergedError(ArithmeticError):
    """Loss, gradients or weights became NaN or infinite; there is nothing to save."""


@dataclass(eq=False)
class Loop:
    """AdamW (0.9, 0.999) on the mean squared error, one block of the data after another.

    Every random number comes from one generator on the CPU, in a fixed order, so that neither
    device nor process decides it.

    Attributes:
        parameters: what is trained, float32; the rest of the denoiser stays as it is.
        steps: of all blocks together; only reported.
        autocast: whether to compute in bfloat16.
        step: steps taken so far.
    """

    denoiser: nn.Module
    parameters: Sequence[nn.Parameter]
    examples: Examples
    objective: Objective
    profile: Profile
    seed: int
    steps: int
    autocast: bool = False
    report: Report | None = None
    step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.device = self.parameters[0].device
        self._generator = torch.Generator().manual_seed(self.seed)
        self._optimiser = torch.optim.AdamW(
            self.parameters,
            self.profile.learning_rate,
            betas=(0.9, 0.999),
            weight_decay=self.profile.weight_decay,
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
