"""The losses: of diffusion, for each kind of prediction, and of rectified flows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.finetuning.objectives import Denoising, Density, FlowMatching

BETAS = {"beta_start": 0.001, "beta_end": 0.02, "beta_schedule": "scaled_linear"}


def _alpha_bar(t: int) -> torch.Tensor:
    betas = torch.linspace(0.001**0.5, 0.02**0.5, 1000) ** 2
    return torch.cumprod(1 - betas, 0)[t]


@pytest.mark.parametrize(
    "scheduler", [PNDMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler]
)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_noise_and_target_follow_the_schedule_of_the_sampler(
    tiny_pipeline: StableDiffusionPipeline, scheduler: Any, prediction: str
) -> None:
    tiny_pipeline.scheduler = scheduler(**BETAS, prediction_type=prediction)
    objective = Denoising(tiny_pipeline)
    x, noise = torch.randn(2, 1, 4, 3, 3)
    signal, spread = _alpha_bar(400).sqrt(), (1 - _alpha_bar(400)).sqrt()
    t = torch.tensor([400])
    torch.testing.assert_close(objective.noisy(x, noise, t), signal * x + spread * noise)
    target = {"epsilon": noise, "v_prediction": signal * noise - spread * x, "sample": x}
    torch.testing.assert_close(objective.target(x, noise, t), target[prediction])
    assert objective.timesteps == 1000


def test_every_timestep_is_as_likely_as_any_other(tiny_pipeline: StableDiffusionPipeline) -> None:
    t = Denoising(tiny_pipeline).times(100_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(t, minlength=1000).float()
    assert len(counts) == 1000
    assert counts.min() > 50
    assert counts.max() < 160


def _objective(density: Density = "uniform", **config: Any) -> FlowMatching:
    pipe: Any = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler(**config))
    return FlowMatching(pipe, density)


def _times(n: int, density: Density = "uniform", **config: Any) -> torch.Tensor:
    return _objective(density, **config).times(n, torch.Generator().manual_seed(0))


@given(t=st.lists(st.floats(1, 1000, width=32), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_from_the_target_one_step_of_any_length_stays_on_the_line_to_the_data(
    t: list[float], seed: int
) -> None:
    objective, generator = _objective(), torch.Generator().manual_seed(seed)
    data, noise = torch.randn((2, len(t), 3, 4, 4), generator=generator)
    times = torch.tensor(t)
    level = (times / 1000).reshape(-1, 1, 1, 1)
    noisy, velocity = (f(data, noise, times) for f in (objective.noisy, objective.target))
    torch.testing.assert_close(noisy - level * velocity, data)
    torch.testing.assert_close(noisy + (1 - level) * velocity, noise)


def test_the_sampler_comes_from_noise_to_the_data_by_the_target() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    data, noise = torch.randn((2, 2, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    objective = _objective(shift=3.0)
    scheduler.set_timesteps(7)
    x = noise
    for t in scheduler.timesteps:
        torch.testing.assert_close(x, objective.noisy(data, noise, t.expand(2)))
        x = scheduler.step(objective.target(data, noise, t.expand(2)), t, x).prev_sample
    torch.testing.assert_close(x, data)


def test_by_hand() -> None:
    objective = _objective()
    data, noise = torch.full((1, 1, 1, 1), 4.0), torch.full((1, 1, 1, 1), -2.0)
    t = torch.tensor([250.0])
    # a quarter of the way from 4 to -2, and the whole of it
    assert objective.noisy(data, noise, t).item() == 2.5
    assert objective.target(data, noise, t).item() == -6
    assert objective.prediction_type == "flow"


def test_uniform_times_are_spread_evenly_over_the_levels() -> None:
    t = _times(100_000)
    counts = torch.bincount(t.round().long(), minlength=1001)[1:].float()
    assert len(counts) == 1000
    assert counts.min() > 50
    assert counts.max() < 160


def test_logit_normal_times_have_the_quantiles_of_the_normal_distribution() -> None:
    logits = torch.logit(_times(100_000, "logit-normal") / 1000, eps=1e-6)
    at = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    expected = torch.special.ndtri(at)
    torch.testing.assert_close(torch.quantile(logits, at), expected, atol=0.03, rtol=0)


@pytest.mark.parametrize("density", ["uniform", "logit-normal"])
def test_a_fixed_shift_moves_the_times_towards_noise_and_one_by_size_does_not(
    density: Density,
) -> None:
    plain = _times(1000, density) / 1000
    shifted = _times(1000, density, shift=3.0) / 1000
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))
    dynamic = _times(1000, density, shift=3.0, use_dynamic_shifting=True) / 1000
    assert torch.equal(dynamic, plain)


def test_what_the_scheduler_drew_before_changes_nothing() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    fresh = _times(100, shift=3.0)
    scheduler.set_timesteps(4)
    pipe: Any = SimpleNamespace(scheduler=scheduler)
    t = FlowMatching(pipe, "uniform").times(100, torch.Generator().manual_seed(0))
    assert torch.equal(t, fresh)


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler(), FlowMatchEulerDiscreteScheduler(invert_sigmas=True)]
)
def test_another_scheduler_is_refused(scheduler: Any) -> None:
    pipe: Any = SimpleNamespace(scheduler=scheduler)
    with pytest.raises(UserError, match=f"its {type(scheduler).__name__} is no scheduler of flow"):
        FlowMatching(pipe, "uniform")


def test_errors_of_the_velocity_are_told_as_errors_of_the_noise() -> None:
    objective, t = _objective(shift=3.0), torch.tensor([10.0, 500.0, 990.0])
    data, noise, wrong = torch.randn((3, 3, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    x, level = objective.noisy(data, noise, t), (t / 1000).reshape(3, 1, 1, 1)
    predicted = x + (1 - level) * (objective.target(data, noise, t) + wrong)
    told = objective.noise_factor(t) * wrong.square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(
        told, (predicted - noise).square().mean(dim=(1, 2, 3)), atol=1e-6, rtol=1e-3
    )


@pytest.mark.parametrize("density", ["uniform", "logit-normal"])
def test_a_share_of_the_schedule_is_its_clean_end_under_the_same_density(density: Density) -> None:
    objective = _objective(density)
    whole, part = (
        objective.times(1000, torch.Generator().manual_seed(0), share) for share in (1.0, 0.5)
    )
    torch.testing.assert_close(part, whole / 2, atol=1.0, rtol=0)
    assert torch.equal(whole, objective.times(1000, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(objective.schedule, torch.arange(1, 1001).float())
