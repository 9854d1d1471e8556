"""The ordinary denoising loss, for each kind of prediction."""

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
    UNet2DConditionModel,
)

from spqr_checks.errors import UserError
from spqr_checks.finetuning.objective import Objective, check_supported

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
    objective = Objective(tiny_pipeline)
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
    objective = Objective(tiny_pipeline)
    x, t = torch.ones(1, 1, 1, 1), torch.tensor([500])
    signal = objective.noisy(x, torch.zeros_like(x), t).squeeze()
    torch.testing.assert_close(signal, tiny_pipeline.scheduler.alphas_cumprod[500].sqrt())


def _refusal(pipe: object) -> str:
    with pytest.raises(UserError) as caught:
        check_supported(pipe)  # type: ignore[arg-type]
    return str(caught.value)


def test_flow_matching_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    tiny_pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    assert "FlowMatchEulerDiscreteScheduler" in _refusal(tiny_pipeline)


def test_an_unknown_prediction_type_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    tiny_pipeline.scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction")
    assert "'flow_prediction'" in _refusal(tiny_pipeline)


def test_a_pipeline_without_a_unet_is_refused() -> None:
    assert "only pipelines with a UNet" in _refusal(object())


def _unet(**changes: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        cross_attention_dim=16,
        norm_num_groups=4,
        **changes,
    )


def test_an_inpainting_unet_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    tiny_pipeline.unet = _unet(in_channels=9)
    assert "takes 9 channels, its latents have 4" in _refusal(tiny_pipeline)


@pytest.mark.parametrize(
    "field", [{"num_class_embeds": 3}, {"time_cond_proj_dim": 8}], ids=lambda f: next(iter(f))
)
def test_a_unet_with_other_conditions_is_refused(
    tiny_pipeline: StableDiffusionPipeline, field: dict[str, int]
) -> None:
    tiny_pipeline.unet = _unet(**field)
    assert next(iter(field)) in _refusal(tiny_pipeline)
