"""Steps are those that were asked for, however often a scheduler evaluates the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
)

from spqr_checks.generation.guidance.steering.scheduler import Progress


def walked(scheduler: Any, steps: int) -> tuple[list[int], list[bool]]:
    scheduler.set_timesteps(steps)
    progress = Progress(scheduler)
    assert progress.steps == steps
    found, completes = [], []
    for t in scheduler.timesteps:
        progress.expect(t)
        found.append(progress.step)
        completes.append(progress.completes)
        progress.advance()
    return found, completes


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler]
)
def test_one_evaluation_is_one_step(scheduler: type[Any]) -> None:
    assert walked(scheduler(), 4) == ([0, 1, 2, 3], [True] * 4)


@pytest.mark.parametrize("scheduler", [HeunDiscreteScheduler, KDPM2DiscreteScheduler])
def test_two_evaluations_are_one_step_of_second_order(scheduler: type[Any]) -> None:
    found, completes = walked(scheduler(), 4)
    assert found == [0, 0, 1, 1, 2, 2, 3]
    assert completes == [False, True, False, True, False, True, True]


def test_the_first_step_of_pndm_takes_two_evaluations() -> None:
    assert walked(PNDMScheduler(skip_prk_steps=True), 4) == (
        [0, 0, 1, 2, 3],
        [False, True, True, True, True],
    )


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler(), HeunDiscreteScheduler(), PNDMScheduler(skip_prk_steps=True)]
)
def test_every_step_completes_once(scheduler: Any) -> None:
    for steps in (2, 5, 9):
        found, completes = walked(scheduler, steps)
        assert [step for step, c in zip(found, completes, strict=True) if c] == list(range(steps))


def test_an_evaluation_out_of_turn_is_an_error() -> None:
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(3)
    progress = Progress(scheduler)
    with pytest.raises(RuntimeError, match="evaluation 0 at timestep 5 was not expected"):
        progress.expect(torch.tensor(5))
    for t in scheduler.timesteps:
        progress.expect(t)
        progress.advance()
    with pytest.raises(RuntimeError, match="evaluation 3"):
        progress.expect(scheduler.timesteps[0])
