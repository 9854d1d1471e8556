"""What guidance knows of a scheduler: noise of its predictions, and where its steps end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.steering.scheduler import (
    Progress,
    check_scheduler,
    noise_per_output,
)

V = {"prediction_type": "v_prediction"}


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(clip_sample=False, **V),
        DDPMScheduler(clip_sample=False, **V),
        DPMSolverMultistepScheduler(**V),
        DPMSolverMultistepScheduler(use_karras_sigmas=True, **V),
        UniPCMultistepScheduler(**V),
        EulerDiscreteScheduler(**V),
        EulerDiscreteScheduler(use_karras_sigmas=True, **V),
    ],
)
def test_a_changed_velocity_is_read_by_the_scheduler_as_that_change_of_noise(
    scheduler: Any,
) -> None:
    """Outputs that differ by Δv give clean latents that differ by −(σ/α) Δε."""
    check_scheduler(scheduler)
    scheduler.set_timesteps(7)
    x, v, change = (torch.randn(1, 4, 8, 8, dtype=torch.float64) for _ in range(3))
    for i, t in enumerate(scheduler.timesteps[:5]):
        scheduler.scale_model_input(x, t)
        clean = []
        for output in (v, v + change):
            scheduler._step_index = i
            if hasattr(scheduler, "convert_model_output"):
                clean.append(scheduler.convert_model_output(output, sample=x))
            else:
                clean.append(scheduler.step(output, t, x).pred_original_sample)
        alpha = noise_per_output(scheduler, i)
        sigma = (1 - alpha**2) ** 0.5
        noise = alpha * change
        expected = (-sigma / alpha * noise).to(clean[0])
        torch.testing.assert_close(clean[1] - clean[0], expected, atol=1e-5, rtol=1e-4)


def test_noise_is_itself_under_any_scheduler() -> None:
    scheduler = DEISMultistepScheduler()
    check_scheduler(scheduler)
    assert noise_per_output(scheduler, 0) == 1


def test_pure_noise_has_no_velocity_of_its_own() -> None:
    scheduler = DDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False, **V
    )
    scheduler.set_timesteps(4)
    assert noise_per_output(scheduler, 0) == 0
    assert noise_per_output(scheduler, 1) > 0


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (DDIMScheduler(prediction_type="sample"), "DDIMScheduler has prediction type 'sample'"),
        (FlowMatchEulerDiscreteScheduler(), "has prediction type None"),
        (DPMSolverMultistepScheduler(use_flow_sigmas=True), "on flow sigmas"),
        (DEISMultistepScheduler(**V), "velocities of DEISMultistepScheduler into noise; use one"),
    ],
)
def test_what_cannot_be_told_is_refused(scheduler: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_scheduler(scheduler)


def test_a_scheduler_derived_from_a_known_one_is_not_known() -> None:
    class Mine(PNDMScheduler):  # type: ignore[misc]
        pass

    check_scheduler(PNDMScheduler(**V))
    with pytest.raises(UserError, match="velocities of Mine"):
        check_scheduler(Mine(**V))


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
