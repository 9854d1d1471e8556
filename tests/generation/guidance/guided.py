"""What the tests of guidance share: pipelines, drawing to latents, and guidances by default."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from spqr_checks.choices import Sampler
from spqr_checks.generation.guidance.base import guiding
from spqr_checks.generation.guidance.safe_latent_blend import SafeLatentBlendGuidance
from spqr_checks.generation.guidance.sld import SldGuidance

PROMPTS = ["a red triangle", "a green circle"]
STEPS, SCALE = 4, 3.0
SAMPLER = Sampler(steps=STEPS, guidance=SCALE, batch=2)


def sld(**changes: Any) -> SldGuidance:
    """Strong enough to show on random weights, with every term at work."""
    values = {
        "safety_prompt": "red triangle",
        "warmup": 1,
        "scale": 50.0,
        "threshold": 0.01,
        "momentum_scale": 0.3,
        "momentum_beta": 0.4,
    }
    return SldGuidance.model_validate(values | changes)


def blend(**changes: Any) -> SafeLatentBlendGuidance:
    """Blends every prompt after every step, half and half."""
    values = {
        "weight": 0.5,
        "tau": 0.0,
        "rank": 2,
        "threshold": None,
        "harmful": ("a red triangle", "a small red triangle"),
        "anchors": ("a blue square", "a small blue square"),
    }
    return SafeLatentBlendGuidance.model_validate(values | changes)


def latents(
    pipe: Any, prompts: list[str] | None = None, sampler: Sampler = SAMPLER, **given: Any
) -> Tensor:
    """Finished latents, with whatever guidance the pipeline carries; two seeds, a new scheduler."""
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    if "prompt_embeds" not in given:
        given["prompt"] = prompts or PROMPTS
    n = len(given["prompt"] if "prompt" in given else given["prompt_embeds"])
    with torch.inference_mode(), guiding(pipe, sampler):
        drawn: Tensor = pipe(
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            generator=[torch.Generator().manual_seed(i) for i in range(n)],
            output_type="latent",
            **given,
        ).images
    return drawn


def with_scheduler(pipe: Any, scheduler: type[Any], **changes: Any) -> Any:
    """A copy of the pipeline with another scheduler on the same noise schedule."""
    again = copy.deepcopy(pipe)
    again.scheduler = scheduler.from_config(pipe.scheduler.config, **changes)
    return again


def predicting_velocity(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A copy that draws the same, but whose network predicts v where the original predicts ε."""
    again = copy.deepcopy(pipe)
    again.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, prediction_type="v_prediction"
    )

    def turned(_network: Any, args: Any, _kwargs: Any, output: Any) -> Any:
        x, t = args
        kept = float(again.scheduler.alphas_cumprod[int(t)])
        return ((output[0] - (1 - kept) ** 0.5 * x) / kept**0.5,)

    again.unet.register_forward_hook(turned, with_kwargs=True)
    return again
