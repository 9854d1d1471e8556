"""The noise schedule that training takes is that of the sampler, however this was made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

from spqr_checks.errors import UserError
from spqr_checks.models.noise_schedule import noise_schedule

BETAS = {"beta_start": 0.001, "beta_end": 0.02, "beta_schedule": "scaled_linear"}
SAMPLERS = [
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete"),
        *("HeunDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep"),
        *("UniPCMultistep", "SASolver", "LCM", "TCD"),
    )
]


@pytest.mark.parametrize("given", [{}, BETAS], ids=["by-default", "given"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_it_is_the_sampler_s_own(name: str, given: dict[str, Any]) -> None:
    sampler = getattr(diffusers, name)(**given)
    for made in (sampler, type(sampler).from_config(sampler.config)):
        schedule = noise_schedule(SimpleNamespace(scheduler=made))  # type: ignore[arg-type]
        assert torch.equal(schedule.alphas_cumprod, sampler.alphas_cumprod)
    if given:
        betas = torch.linspace(0.001**0.5, 0.02**0.5, 1000) ** 2
        torch.testing.assert_close(schedule.alphas_cumprod, torch.cumprod(1 - betas, 0))


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_without_signal_at_the_end_it_has_none_either(name: str) -> None:
    sampler = getattr(diffusers, name)(**BETAS, rescale_betas_zero_snr=True)
    schedule = noise_schedule(SimpleNamespace(scheduler=sampler))  # type: ignore[arg-type]
    assert schedule.alphas_cumprod[-1] < 1e-6
    torch.testing.assert_close(schedule.alphas_cumprod, sampler.alphas_cumprod)


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}, "has no discrete noise schedule"),
        ("EDMEulerScheduler", {}, "has no discrete noise schedule"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "'flow_prediction'"),
        ("CogVideoXDDIMScheduler", {}, "shifts its noise schedule"),
    ],
)
def test_a_sampler_whose_betas_do_not_say_it_is_refused(
    name: str, given: dict[str, Any], why: str
) -> None:
    sampler = getattr(diffusers, name)(**given)
    with pytest.raises(UserError, match=f"its {name} .*{why}|its {name} {why}"):
        noise_schedule(SimpleNamespace(scheduler=sampler))  # type: ignore[arg-type]
