"""Safe Latent Diffusion on transformers: its loop written out, and where it is not defined."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from guided import PROMPTS, SCALE, STEPS, sld
from real_classes import SIZE, sampler
from torch import Tensor

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import attach_guidance, detach_guidance, guiding
from spqr_checks.generation.guidance.sld import SldGuidance
from spqr_checks.generation.guidance.steering.scheduler import noise_per_output
from spqr_checks.models.pipelines import load_pipeline

PARAMETERS = sld(warmup=1, threshold=0.05, momentum_scale=0.3, scale=5000)


@pytest.fixture(scope="module")
def loaded(real_class: Callable[[str], Path]) -> Callable[[str], Any]:
    """Pipelines in double precision, each loaded once; guidance is taken off after each test."""
    return cache(lambda kind: load_pipeline(str(real_class(kind))).to(torch.float64))


def drawn(pipe: Any, kind: str, guidance: SldGuidance | None = None) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    if guidance is not None:
        attach_guidance(pipe, guidance)
    extra = {"use_resolution_binning": False, "clean_caption": False} if kind == "pixart" else {}
    try:
        with guiding(pipe, sampler(kind, steps=STEPS)):
            found: Tensor = pipe(
                PROMPTS,
                num_inference_steps=STEPS,
                guidance_scale=SCALE,
                height=SIZE,
                width=SIZE,
                generator=[torch.Generator().manual_seed(i) for i in range(2)],
                output_type="latent",
                **extra,
            ).images
    finally:
        detach_guidance(pipe)
    return found


def encoded(pipe: Any, kind: str, text: str) -> dict[str, Tensor]:
    """What the transformer is told of a text, one row."""
    off = {"do_classifier_free_guidance": False}
    if kind == "sd3":
        hidden, _, pooled, _ = pipe.encode_prompt(text, None, None, **off)
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled}
    hidden, mask, _, _ = pipe.encode_prompt(text, clean_caption=False, **off)
    return {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}


def written_out(pipe: Any, kind: str, p: SldGuidance) -> Tensor:
    """The sampling loop, all in terms of noise; one call of the network for each text."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    extra = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    extra = extra if kind == "pixart" else {}
    channels = pipe.transformer.config.in_channels
    images = []
    for i, prompt in enumerate(PROMPTS):
        scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        scheduler.set_timesteps(STEPS)
        generator = torch.Generator().manual_seed(i)
        x = torch.randn((1, channels, 8, 8), generator=generator, dtype=torch.float64)
        nu = torch.zeros_like(x)
        told = [encoded(pipe, kind, text) for text in ("", prompt, p.safety_prompt)]
        for step, t in enumerate(scheduler.timesteps):
            outputs = [
                pipe.transformer(x, timestep=t[None], return_dict=False, **one, **extra)[0]
                for one in told
            ]
            outputs = [output[:, :channels] for output in outputs]
            # x = (1 − σ) data + σ noise and v = noise − data
            left = 1 - float(scheduler.sigmas[step]) if kind == "sd3" else 1.0
            plus = x if kind == "sd3" else 0.0
            e_u, e_c, e_s = (plus + left * output for output in outputs)
            mu = ((e_c - e_s).abs() * p.scale).clamp(max=1) * (e_c - e_s < p.threshold)
            gamma = mu * (e_s - e_u) + p.momentum_scale * nu
            nu = p.momentum_beta * nu + (1 - p.momentum_beta) * gamma
            steers = step >= p.warmup and left > 0
            noise = e_u + SCALE * (e_c - e_u - (gamma if steers else 0))
            output = (
                (noise - plus) / left if left else outputs[0] + SCALE * (outputs[1] - outputs[0])
            )
            x = scheduler.step(output, t, x, return_dict=False)[0]
        images.append(x)
    return torch.cat(images)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd3", "pixart"])
@pytest.mark.parametrize("warmup", [0, 2])
def test_latents_are_those_of_the_loop_written_out(
    loaded: Callable[[str], Any], kind: str, warmup: int
) -> None:
    pipe, parameters = loaded(kind), PARAMETERS.model_copy(update={"warmup": warmup})
    plain = drawn(pipe, kind)
    guided = drawn(pipe, kind, parameters)
    torch.testing.assert_close(guided, written_out(pipe, kind, parameters), atol=1e-6, rtol=1e-5)
    assert (guided - plain).abs().max() > 1e-3
    assert torch.equal(drawn(pipe, kind, parameters.model_copy(update={"scale": 0.0})), plain)


def test_the_noise_of_a_velocity_is_what_is_left_of_the_image(loaded: Callable[[str], Any]) -> None:
    scheduler = loaded("sd3").scheduler
    scheduler.set_timesteps(3)
    found = [noise_per_output(scheduler, i) for i in range(3)]
    assert found == pytest.approx([1 - float(sigma) for sigma in scheduler.sigmas[:3]])
    assert found[0] == 0


@pytest.mark.parametrize("kind", ["flux", "flux-schnell"])
def test_where_guidance_is_distilled_it_is_not_defined(
    loaded: Callable[[str], Any], kind: str
) -> None:
    with pytest.raises(UserError, match=r"^guidance 'sld' needs a prediction without .*distilled"):
        attach_guidance(loaded(kind), PARAMETERS)


def test_another_pipeline_with_a_transformer_is_refused() -> None:
    class Other:
        transformer = torch.nn.Linear(1, 1)

        def __call__(self, prompt: str) -> None: ...

    with pytest.raises(UserError, match="3 and 3.5 and PixArt; this pipeline is a Other"):
        attach_guidance(Other(), PARAMETERS)  # type: ignore[arg-type]
