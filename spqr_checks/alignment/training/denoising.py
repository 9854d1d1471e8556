"""Finished latents whose randomness is each image's own: drawn from noise, or edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spqr_checks.alignment.training.embeddings import encode, joined
from spqr_checks.alignment.training.latents import Predictor
from spqr_checks.choices import Sampler

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@torch.no_grad()
def draw_seeded(
    pipe: DiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler
) -> Tensor:
    """Latents by the pipeline's own sampler, shape (n, channels, h, w), float32.

    The initial latent of an image depends on its seed alone. Batches are consecutive blocks of
    ``sampler.batch`` prompts.
    """
    pipe.set_progress_bar_config(disable=True)
    parts: list[Tensor] = []
    for start in range(0, len(prompts), sampler.batch):
        end = start + sampler.batch
        drawn = pipe(
            list(prompts[start:end]),
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            height=sampler.height,
            width=sampler.width,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds[start:end]],
            output_type="latent",
        )
        parts.append(drawn.images.float())
    return torch.cat(parts)


@torch.no_grad()
def edit(
    pipe: DiffusionPipeline,
    latents: Tensor,
    prompts: Sequence[str],
    negative: Sequence[str],
    seeds: Sequence[int],
    sampler: Sampler,
    *,
    strength: float,
) -> Tensor:
    """SDEdit: noises latents part of the way and draws them on with other prompts.

    Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential
    Equations" (ICLR 2022), by the pipeline's own scheduler.

    Args:
        latents: finished latents, shape (n, channels, h, w).
        prompts, negative: one per latent; the negative one stands where guidance has "".
        seeds: of the noise, one per latent.
        strength: share of the sampler's steps that are drawn again, in (0, 1]; at least one is.

    Returns:
        Finished latents, in the shape of the given ones.
    """
    parts: list[Tensor] = []
    for start in range(0, len(prompts), sampler.batch):
        block = slice(start, start + sampler.batch)
        parts.append(
            _edit_block(
                pipe,
                latents[block],
                prompts[block],
                negative[block],
                [torch.Generator("cpu").manual_seed(seed) for seed in seeds[block]],
                sampler,
                strength=strength,
            )
        )
    return torch.cat(parts)


def _edit_block(
    pipe: DiffusionPipeline,
    latents: Tensor,
    prompts: Sequence[str],
    negative: Sequence[str],
    generators: list[torch.Generator],
    sampler: Sampler,
    *,
    strength: float,
) -> Tensor:
    n, device = len(latents), latents.device
    predictor = Predictor(pipe, sampler)
    both = joined([encode(pipe, negative), encode(pipe, prompts)])
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(sampler.steps, device=device)
    again = min(max(int(sampler.steps * strength), 1), sampler.steps)
    # a scheduler of order 2 has two timesteps per step
    skipped = (sampler.steps - again) * int(getattr(scheduler, "order", 1))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    timesteps = scheduler.timesteps[skipped:]
    noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators])
    x = scheduler.add_noise(latents, noise.to(device), timesteps[:1].repeat(n))
    extra = pipe.prepare_extra_step_kwargs(generators, 0.0)
    guidance = max(sampler.guidance, 1.0)  # below 1 pipelines leave guidance out
    for now in timesteps:
        scaled = scheduler.scale_model_input(x, now)
        predicted = predictor(pipe.unet, torch.cat([scaled, scaled]), now.expand(2 * n), both)
        without, with_prompt = predicted.chunk(2)
        guided = without + guidance * (with_prompt - without)
        x = scheduler.step(guided, now, x, return_dict=False, **extra)[0]
    edited: Tensor = x.float()
    return edited
