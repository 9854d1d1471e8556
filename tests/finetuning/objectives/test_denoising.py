"""The denoising loss, for each kind of prediction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

from spqr_checks.errors import UserError
from spqr_checks.finetuning.objectives import Denoising

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


def test_a_schedule_that_is_the_sampler_s_default_is_kept(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    tiny_pipeline.scheduler = LCMScheduler()
    objective = Denoising(tiny_pipeline)
    x, t = torch.ones(1, 1, 1, 1), torch.tensor([500])
    signal = objective.noisy(x, torch.zeros_like(x), t).squeeze()
    torch.testing.assert_close(signal, tiny_pipeline.scheduler.alphas_cumprod[500].sqrt())


def _refusal(pipe: object) -> str:
    with pytest.raises(UserError) as caught:
        Denoising(pipe)  # type: ignore[arg-type]
    return str(caught.value)


def test_flow_matching_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    tiny_pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    assert "FlowMatchEulerDiscreteScheduler" in _refusal(tiny_pipeline)


def test_an_unknown_prediction_type_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    tiny_pipeline.scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction")
    assert "'flow_prediction'" in _refusal(tiny_pipeline)


def test_every_timestep_is_as_likely_as_any_other(tiny_pipeline: StableDiffusionPipeline) -> None:
    t = Denoising(tiny_pipeline).times(100_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(t, minlength=1000).float()
    assert len(counts) == 1000
    assert counts.min() > 50
    assert counts.max() < 160
