"""Where in the sampler's steps an evaluation of the UNet lies."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Progress:
    """Counts the evaluations of one call of a pipeline.

    Most schedulers evaluate the network once per step. Heun and its kin evaluate it twice, and
    PNDM spends two evaluations on its first step. A sampler step is over where diffusers' own
    progress bar moves on, so warm-up and schedule are counted in the steps that were asked for.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.evaluation = 0
        self.step = 0

    @property
    def steps(self) -> int:
        """Sampler steps that were asked for."""
        return int(self.scheduler.num_inference_steps)

    @property
    def completes(self) -> bool:
        """Whether the present evaluation is the last of its step."""
        n, order = len(self.scheduler.timesteps), self.scheduler.order
        done = self.evaluation + 1
        return done == n or (done > n - self.steps * order and done % order == 0)

    def expect(self, t: Tensor) -> None:
        """Raises RuntimeError unless ``t`` is the timestep of the present evaluation."""
        timesteps = self.scheduler.timesteps
        if self.evaluation >= len(timesteps) or bool(timesteps[self.evaluation] != t):
            raise RuntimeError(
                f"evaluation {self.evaluation} at timestep {float(t):g} was not expected; guidance "
                "steers one whole call of a pipeline at a time"
            )

    def advance(self) -> None:
        """The present evaluation has been used; the next one is due."""
        if self.completes:
            self.step += 1
        self.evaluation += 1
