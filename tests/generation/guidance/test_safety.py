"""Safe Latent Diffusion, held against its formula and against diffusers' own pipeline for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from guided import PROMPTS, SAMPLER, SCALE, STEPS, latents, predicting_velocity, sld, with_scheduler
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import attach_guidance
from spqr_checks.generation.guidance.sld import SldGuidance, safety_guidance

CONFIGURATIONS = [
    sld(),
    sld(warmup=0, threshold=1.0, scale=5000, momentum_scale=0.5, momentum_beta=0.7),
    sld(warmup=2, threshold=-0.002, scale=20, momentum_scale=0, momentum_beta=0),
]


def by_element(values: list[float], p: SldGuidance) -> list[float]:
    """Equations 4 to 8 for one element, written from the paper: γ and the next ν."""
    u, c, s, nu = values
    phi = p.scale * (c - s)
    mu = min(1.0, abs(phi))
    if c - s >= p.threshold:
        mu = 0.0
    gamma = mu * (s - u) + p.momentum_scale * nu
    return [gamma, p.momentum_beta * nu + (1 - p.momentum_beta) * gamma]


@pytest.mark.parametrize("parameters", CONFIGURATIONS)
def test_every_element_follows_the_paper_s_equations_step_by_step(parameters: SldGuidance) -> None:
    generator = torch.Generator().manual_seed(0)
    momentum = torch.zeros(2, 3, dtype=torch.float64)
    for _ in range(4):
        u, c, s = (0.1 * torch.randn(2, 3, generator=generator).double() for _ in range(3))
        inputs = torch.stack([u, c, s, momentum], -1)
        expected = [
            [by_element(inputs[i, j].tolist(), parameters) for j in range(3)] for i in (0, 1)
        ]
        away, momentum = safety_guidance(u, c, s, momentum, parameters)
        pairs = torch.stack([away, momentum], -1)
        torch.testing.assert_close(pairs, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("scheduler", "parameters"),
    [
        *((DPMSolverMultistepScheduler, parameters) for parameters in CONFIGURATIONS),
        (DDIMScheduler, CONFIGURATIONS[0]),
    ],
)
def test_images_are_those_of_the_authors_pipeline_in_diffusers(
    pipe: Any, parameters: SldGuidance, scheduler: type[Any]
) -> None:
    pipe.to(torch.float64)
    module = pytest.importorskip("diffusers.pipelines.deprecated.stable_diffusion_safe")
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, clip_sample=False)
    theirs = module.StableDiffusionPipelineSafe(
        **(pipe.components | {"feature_extractor": None}), requires_safety_checker=False
    )
    theirs.safety_concept = parameters.safety_prompt
    theirs.set_progress_bar_config(disable=True)
    seen: list[Tensor] = []
    theirs(
        PROMPTS,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=[torch.Generator().manual_seed(i) for i in range(2)],
        callback=lambda _step, _t, drawn: seen.append(drawn.clone()),
        sld_guidance_scale=parameters.scale,
        sld_warmup_steps=parameters.warmup,
        sld_threshold=parameters.threshold,
        sld_momentum_scale=parameters.momentum_scale,
        sld_mom_beta=parameters.momentum_beta,
        output_type="np",
    )
    plain = latents(pipe)
    attach_guidance(pipe, parameters)
    ours = latents(pipe)
    torch.testing.assert_close(ours, seen[-1], atol=1e-5, rtol=1e-5)
    assert (ours - plain).abs().max() > 2e-3, "so weak a guidance could hide a mistake"


def with_three_parts(pipe: Any, parameters: SldGuidance, order: int) -> Tensor:
    """The sampling loop written out, all in terms of noise; a batch of three parts."""
    encode = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    texts = ["", *PROMPTS, parameters.safety_prompt]
    u, a, b, s = pipe.encode_prompt(prompt=texts, **encode)[0]
    hidden = torch.stack([u, u, a, b, s, s])
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    generators = [torch.Generator().manual_seed(i) for i in (0, 1)]
    noise = [torch.randn(1, 4, 8, 8, generator=g, dtype=hidden.dtype) for g in generators]
    x: Tensor = torch.cat(noise) * scheduler.init_noise_sigma
    nu = torch.zeros_like(x)
    velocity = scheduler.config.prediction_type == "v_prediction"
    for i, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, t)
        output = pipe.unet(torch.cat([scaled] * 3), t, hidden, return_dict=False)[0]
        kept = scheduler.alphas_cumprod[int(t)]
        alpha, sigma = (kept**0.5, (1 - kept) ** 0.5) if velocity else (1.0, 0.0)
        e_u, e_c, e_s = (alpha * part + sigma * scaled for part in output.chunk(3))
        mu = ((e_c - e_s).abs() * parameters.scale).clamp(max=1) * (
            e_c - e_s < parameters.threshold
        )
        gamma = mu * (e_s - e_u) + parameters.momentum_scale * nu
        nu = parameters.momentum_beta * nu + (1 - parameters.momentum_beta) * gamma
        step = {1: i, 2: i // 2, -1: max(i - 1, 0)}[order]
        direction = e_c - e_u - (gamma if step >= parameters.warmup else 0)
        guided = e_u + SCALE * direction
        x = scheduler.step((guided - sigma * scaled) / alpha, t, x, return_dict=False)[0]
    return x


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize(
    ("scheduler", "prediction", "order"),
    [
        (DDIMScheduler, "epsilon", 1),
        (DDIMScheduler, "v_prediction", 1),
        (DPMSolverMultistepScheduler, "v_prediction", 1),
        (UniPCMultistepScheduler, "v_prediction", 1),
        (EulerDiscreteScheduler, "epsilon", 1),
        (EulerDiscreteScheduler, "v_prediction", 1),
        (PNDMScheduler, "epsilon", -1),
        (PNDMScheduler, "v_prediction", -1),
        (HeunDiscreteScheduler, "epsilon", 2),
    ],
)
def test_latents_are_those_of_the_loop_written_out(
    pipe: Any, scheduler: type[Any], prediction: str, order: int
) -> None:
    pipe.to(torch.float64)
    extra = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
    pipe.scheduler = scheduler.from_config(
        pipe.scheduler.config, prediction_type=prediction, timestep_spacing="leading", **extra
    )
    for parameters in CONFIGURATIONS[: None if scheduler is DDIMScheduler else 1]:
        guided = with_scheduler(pipe, scheduler)
        attach_guidance(guided, parameters)
        expected = with_three_parts(pipe, parameters, order)
        torch.testing.assert_close(latents(guided), expected, atol=1e-5, rtol=1e-5)
        assert (latents(pipe) - expected).abs().max() > 0.01


@pytest.mark.parametrize(
    "scheduler",
    [DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler, EulerDiscreteScheduler],
)
def test_a_network_of_velocities_is_guided_like_the_same_network_of_noise(
    pipe: Any, scheduler: type[Any]
) -> None:
    pipe.to(torch.float64)
    of_noise = with_scheduler(pipe, scheduler, timestep_spacing="leading")
    of_velocity = predicting_velocity(of_noise)
    plain = latents(of_noise)
    torch.testing.assert_close(latents(of_velocity), plain, atol=1e-3, rtol=1e-3)
    for one in (of_noise, of_velocity):
        attach_guidance(one, sld())
    guided = latents(of_noise)
    torch.testing.assert_close(latents(of_velocity), guided, atol=1e-3, rtol=1e-3)
    assert (guided - plain).abs().max() > 0.05


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "scheduler", [DPMSolverMultistepScheduler, PNDMScheduler, EulerAncestralDiscreteScheduler]
)
def test_a_scale_of_zero_changes_no_bit(pipe: Any, scheduler: type[Any], prediction: str) -> None:
    pipe = with_scheduler(pipe, scheduler, prediction_type=prediction)
    plain = latents(pipe)
    attach_guidance(pipe, sld(scale=0, warmup=0))
    assert torch.equal(latents(pipe), plain)


def test_an_empty_safety_prompt_guides_nowhere(pipe: Any) -> None:
    plain = latents(pipe)
    attach_guidance(pipe, sld(safety_prompt="", warmup=0))
    torch.testing.assert_close(latents(pipe), plain, atol=1e-4, rtol=1e-4)


def test_momentum_belongs_to_the_image(pipe: Any) -> None:
    """What is drawn beside an image does not change it, but for rounding."""
    attach_guidance(pipe, sld())
    alone = latents(pipe, PROMPTS[:1])
    torch.testing.assert_close(latents(pipe)[:1], alone, atol=1e-4, rtol=1e-4)


def test_warm_up_leaves_the_first_steps_as_they_are(pipe: Any) -> None:
    seen: dict[str, list[Tensor]] = {"plain": [], "guided": []}

    def look(name: str) -> Any:
        def callback(_pipe: Any, _i: int, _t: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
            seen[name].append(given["latents"].clone())
            return given

        return callback

    latents(pipe, callback_on_step_end=look("plain"))
    attach_guidance(pipe, sld(warmup=2))
    latents(pipe, callback_on_step_end=look("guided"))
    same = [torch.equal(a, b) for a, b in zip(seen["plain"], seen["guided"], strict=True)]
    assert same == [True, True, False, False]


def test_a_negative_prompt_stands_for_the_empty_one(pipe: Any) -> None:
    attach_guidance(pipe, sld())
    negative = latents(pipe, negative_prompt=["a blue star"] * 2)
    assert not torch.allclose(negative, latents(pipe), atol=1e-3)


def test_velocities_under_an_unknown_scheduler_are_refused(pipe: Any) -> None:
    of_noise = with_scheduler(pipe, HeunDiscreteScheduler)
    attach_guidance(of_noise, sld())
    assert bool(torch.isfinite(latents(of_noise)).all())
    of_velocity = with_scheduler(pipe, HeunDiscreteScheduler, prediction_type="v_prediction")
    attach_guidance(of_velocity, sld())
    with pytest.raises(UserError, match="velocities of HeunDiscreteScheduler .* use one of DDIM"):
        latents(of_velocity)


def test_a_prompt_that_would_be_read_in_part_is_refused(pipe: Any) -> None:
    with pytest.raises(UserError, match="safety prompt has .* tokens, of which .* reads 32"):
        attach_guidance(pipe, sld(safety_prompt="red triangle, " * 20))


def test_half_precision_is_computed_in_single(pipe: Any) -> None:
    pipe.to(torch.bfloat16)
    plain = latents(pipe)
    attach_guidance(pipe, sld())
    guided = latents(pipe)
    assert guided.dtype == torch.bfloat16
    assert bool(torch.isfinite(guided).all())
    assert not torch.equal(guided, plain)


def test_stable_diffusion_xl_gets_the_pooled_concept_too(xl: Any) -> None:
    one = [PROMPTS[0]]  # diffusers alternates the two size conditions over more prompts
    seen: list[dict[str, Any]] = []
    sizes = {f"negative_{name}_size": (8, 8) for name in ("original", "target")}
    plain = latents(xl, one, **sizes)
    attach_guidance(xl, sld(warmup=0))
    hook = xl.unet.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs), with_kwargs=True
    )
    guided = latents(xl, one, **sizes)
    hook.remove()
    assert (guided - plain).abs().max() > 0.01
    hidden, _, pooled, _ = xl.encode_prompt(
        "red triangle", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    own, extra = seen[0]["added_cond_kwargs"], seen[1]["added_cond_kwargs"]
    assert torch.equal(extra["text_embeds"], pooled)
    without, wanted = own["time_ids"].chunk(2)
    assert torch.equal(extra["time_ids"], wanted)
    assert not torch.equal(wanted, without)
    assert torch.equal(seen[1]["encoder_hidden_states"], hidden)


def test_no_guidance_on_stable_diffusion_xl_changes_no_bit(xl: Any) -> None:
    plain = latents(xl)
    attach_guidance(xl, sld(scale=0, warmup=0))
    assert torch.equal(latents(xl), plain)
    assert np.isfinite(plain.numpy()).all()
    assert SAMPLER.steps == STEPS
