"""What guidance has to know of a scheduler: its noise, its steps and its random numbers.

Networks may predict the velocity v instead of the noise ε. With x_t = α x_0 + σ ε and
α² + σ² = 1, v = α ε − σ x_0, so that ε = α v + σ x_t (Salimans & Ho 2022). Two predictions at the
same x_t therefore differ by Δε = α Δv: arithmetic on differences of noise needs α alone.
Schedulers that scale the model input (Euler) hand the network this same x_t. With flow matching
x_t = (1 − σ) x_0 + σ ε and the network predicts ε − x_0, so that ε = x_t + (1 − σ) v.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from spqr_checks.errors import UserError

Generators = list[torch.Generator] | torch.Generator | None

_BY_TIMESTEP = (DDIMScheduler, DDPMScheduler, PNDMScheduler)
_BY_SIGMA = (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)


def _flows(scheduler: Any) -> bool:
    return (
        isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
        and not scheduler.config.invert_sigmas
    )


def check_scheduler(scheduler: Any, flow: bool = False) -> None:
    """UserError unless the noise can be told from the network's output under this scheduler.

    ``flow``: whether that may be the velocity of flow matching.
    """
    if flow and _flows(scheduler):
        return
    name, kind = type(scheduler).__name__, scheduler.config.get("prediction_type")
    known = type(scheduler) in (*_BY_TIMESTEP, *_BY_SIGMA)
    # diffusion of EDM and flow matching has no such schedule
    discrete = hasattr(scheduler, "alphas_cumprod")
    sigmas = bool(scheduler.config.get("use_flow_sigmas"))
    if kind not in ("epsilon", "v_prediction") or not discrete or sigmas:
        raise UserError(
            f"guidance needs predictions of noise or velocity; {name} has prediction type {kind!r}"
            f"{' on flow sigmas' if sigmas else ''}"
        )
    if kind == "v_prediction" and not known:
        names = ", ".join(sorted(c.__name__ for c in (*_BY_TIMESTEP, *_BY_SIGMA)))
        raise UserError(
            f"guidance cannot turn the velocities of {name} into noise; use one of {names}"
        )


def noise_per_output(scheduler: Any, evaluation: int) -> float:
    """Δε per difference of the network's outputs: 1 for noise, α of this evaluation for velocity.

    α is the one with which the scheduler itself reads the output; with flow matching it is 1 − σ.
    """
    if _flows(scheduler):
        return 1.0 - float(scheduler.sigmas[evaluation])
    if scheduler.config.prediction_type == "epsilon":
        return 1.0
    if type(scheduler) in _BY_TIMESTEP:
        t = int(scheduler.timesteps[evaluation])
        return float(scheduler.alphas_cumprod[t] ** 0.5)
    sigma = float(scheduler.sigmas[evaluation])
    return float((1 + sigma**2) ** -0.5)


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


def drawn_again(
    generators: Generators, device: torch.device
) -> Callable[[], AbstractContextManager[Generators]]:
    """Remembers the random numbers that a step is about to draw.

    Those are its own generators' and torch's global ones', which a few schedulers use. What is
    returned opens a scope in which copies of the generators, in the same arrangement, draw the
    same again; the global ones are left as they are then.
    """
    if isinstance(generators, list):
        own: Generators = [_copied(generator) for generator in generators]
    else:
        own = None if generators is None else _copied(generators)
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextmanager
    def again() -> Iterator[Generators]:
        with torch.random.fork_rng(devices=[] if cuda is None else [device]):
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda, device)
            yield own

    return again


def _copied(generator: torch.Generator) -> torch.Generator:
    copied = torch.Generator(generator.device)
    copied.set_state(generator.get_state())
    return copied
