"""Noisy latents for training: drawn part of the way, or drawn fully and noised again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from spqr_checks.alignment.training.embeddings import Conditions, joined
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Predictor:
    """Calls a UNet of the pipeline's architecture on noisy latents and encoded prompts.

    The network's output is a noise prediction or a velocity, as the pipeline's scheduler says.
    Both are affine in each other at one x_t, so a combination of predictions whose weights add
    up to one (ESD's target) is the same in either.
    """

    def __init__(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        self.config = pipe.unet.config
        scale = int(pipe.vae_scale_factor)
        sample = self.config.sample_size
        rows, columns = (sample, sample) if isinstance(sample, int) else sample
        self.height = sampler.height or rows * scale
        self.width = sampler.width or columns * scale
        self.shape = (int(self.config.in_channels), self.height // scale, self.width // scale)

    def __call__(self, network: nn.Module, x: Tensor, t: Tensor, prompts: Conditions) -> Tensor:
        """Prediction, shape of ``x``; ``t`` holds one timestep per latent."""
        dtype = next(network.parameters()).dtype
        extra: dict[str, Any] = {}
        if prompts.pooled is not None:
            # SDXL: original size, crop offset, target size
            sizes = [self.height, self.width, 0, 0, self.height, self.width]
            extra["added_cond_kwargs"] = {
                "text_embeds": prompts.pooled.to(dtype),
                "time_ids": torch.tensor([sizes] * len(x), dtype=dtype, device=x.device),
            }
        prediction: Tensor = network(x.to(dtype), t, prompts.hidden.to(dtype), **extra).sample
        return prediction.float()


@torch.no_grad()
def draw(
    pipe: DiffusionPipeline, prompts: Sequence[str], sampler: Sampler, guidance: float, seed: int
) -> Tensor:
    """Finished latents of the prompts by the pipeline's own sampler, shape (n, channels, h, w)."""
    pipe.set_progress_bar_config(disable=True)
    parts: list[Tensor] = []
    for start in range(0, len(prompts), sampler.batch):
        chunk = list(prompts[start : start + sampler.batch])
        generator = torch.Generator("cpu").manual_seed(seed + start)
        drawn = pipe(
            chunk,
            num_inference_steps=sampler.steps,
            guidance_scale=guidance,
            height=sampler.height,
            width=sampler.width,
            generator=generator,
            output_type="latent",
        )
        parts.append(drawn.images.float())
    return torch.cat(parts)


class Noiser:
    """The forward process of the pipeline's schedule: x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) ε."""

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        self.timesteps = int(self.scheduler.config.num_train_timesteps)

    def __call__(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noises each latent to a timestep of its own, uniform; returns (x_t, t)."""
        x, t, _ = self._noised(latents, generator)
        return x, t

    def with_truth(
        self, latents: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(x_t, t) and what the diffusion loss compares with: the noise, or the velocity.

        Raises:
            UserError: the network predicts something else.
        """
        x, t, noise = self._noised(latents, generator)
        match self.scheduler.config.prediction_type:
            case "epsilon":
                return x, t, noise
            case "v_prediction":
                return x, t, self.scheduler.get_velocity(latents, noise, t)
            case other:
                raise UserError(
                    f"the model predicts {other!r}; this loss needs one that predicts the noise "
                    "('epsilon') or the velocity ('v_prediction')"
                )

    def _noised(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.randint(0, self.timesteps, (len(latents),), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        t, noise = t.to(latents.device), noise.to(latents.device)
        return self.scheduler.add_noise(latents, noise, t), t, noise


@torch.no_grad()
def draw_partly(
    pipe: DiffusionPipeline,
    predictor: Predictor,
    network: nn.Module,
    prompts: Conditions,
    unconditional: Conditions,
    *,
    steps: int,
    guidance: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draws until a random step of the sampler, with classifier-free guidance.

    One step is drawn for the batch, and latents and timestep are those that the sampler would
    hand the network there (ESD's original code then moves t within the sampler's bin; its current
    code does not).

    Returns:
        (x_t, t), both with one entry per prompt.
    """
    n = len(prompts)
    device = prompts.hidden.device
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps, device=device)
    timesteps = scheduler.timesteps
    stop = int(torch.randint(0, len(timesteps), (1,), generator=generator))
    x = torch.randn((n, *predictor.shape), generator=generator).to(device)
    x = x * scheduler.init_noise_sigma
    both = joined([unconditional.repeated(n), prompts])
    extra = pipe.prepare_extra_step_kwargs(generator, 0.0)
    for now in timesteps[:stop]:
        scaled = scheduler.scale_model_input(x, now)
        predicted = predictor(network, torch.cat([scaled, scaled]), now.expand(2 * n), both)
        without, with_prompt = predicted.chunk(2)
        guided = without + guidance * (with_prompt - without)
        x = scheduler.step(guided, now, x, return_dict=False, **extra)[0]
    now = timesteps[stop]
    return scheduler.scale_model_input(x, now), now.expand(n)
