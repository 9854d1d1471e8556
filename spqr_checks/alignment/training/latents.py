"""Latents for training: drawn wholly, into a pool, or part of the way, and edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.training.unet import Predictor
from spqr_checks.choices import Sampler
from spqr_checks.generation.conditions import Conditions, encode, joined

Generators = list[torch.Generator] | torch.Generator


def draw(
    pipe: DiffusionPipeline, prompts: Sequence[str], sampler: Sampler, guidance: float, seed: int
) -> Tensor:
    """Finished latents of the prompts by the pipeline's own sampler, shape (n, channels, h, w).

    Batches are consecutive blocks of ``sampler.batch`` prompts, with one generator each.
    """
    return _drawn(pipe, prompts, sampler, guidance, lambda block: seeded(seed + block.start))


def draw_seeded(
    pipe: DiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int], sampler: Sampler
) -> Tensor:
    """As ``draw``, but the initial latent of an image depends on its own seed alone."""
    return _drawn(
        pipe, prompts, sampler, sampler.guidance, lambda block: [*map(seeded, seeds[block])]
    )


@torch.no_grad()
def _drawn(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    sampler: Sampler,
    guidance: float,
    generators: Callable[[slice], Generators],
) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    parts: list[Tensor] = []
    for block in blocks(len(prompts), sampler.batch):
        drawn = pipe(
            list(prompts[block]),
            num_inference_steps=sampler.steps,
            guidance_scale=guidance,
            height=sampler.height,
            width=sampler.width,
            generator=generators(block),
            output_type="latent",
        )
        parts.append(drawn.images.float())
    return torch.cat(parts)


def blocks(n: int, size: int) -> list[slice]:
    """Consecutive slices of at most this size."""
    return [slice(start, start + size) for start in range(0, n, size)]


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator("cpu").manual_seed(seed)


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
    again = min(max(int(sampler.steps * strength), 1), sampler.steps)
    guidance = max(sampler.guidance, 1.0)  # below 1 pipelines leave guidance out
    predictor, parts = Predictor(pipe, sampler), list[Tensor]()
    for block in blocks(len(prompts), sampler.batch):
        clean, generators = latents[block], [*map(seeded, seeds[block])]
        both = joined([encode(pipe, negative[block]), encode(pipe, prompts[block])])
        scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        scheduler.set_timesteps(sampler.steps, device=clean.device)
        # a scheduler of order 2 has two timesteps per step
        skipped = (sampler.steps - again) * int(getattr(scheduler, "order", 1))
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        timesteps = scheduler.timesteps[skipped:]
        noise = torch.stack([torch.randn(clean.shape[1:], generator=g) for g in generators])
        x = scheduler.add_noise(clean, noise.to(clean.device), timesteps[:1].repeat(len(clean)))
        extra = pipe.prepare_extra_step_kwargs(generators, 0.0)
        call = _guided(predictor, pipe.unet, both, guidance)
        parts.append(_denoised(scheduler, x, timesteps, call, extra).float())
    return torch.cat(parts)


@torch.no_grad()
def draw_partly(
    pipe: DiffusionPipeline,
    predictor: Predictor,
    network: nn.Module,
    prompts: Conditions,
    unguided: Conditions,
    *,
    steps: int,
    guidance: float,
    generator: torch.Generator,
    margins: tuple[int, int] = (0, 0),
    at: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws until a random step of the sampler, with classifier-free guidance.

    One step is drawn for the batch, and latents and timestep are those that the sampler would
    hand the network there (ESD's original code then moves t within the sampler's bin; its current
    code does not). ``unguided`` is what the pipeline's own guidance takes for no prompt.

    Args:
        margins: first and last steps that are never stopped at, as far as there are others.
        at: the timestep to stop at, in the place of a random one.

    Returns:
        (x_t, t), both with one entry per prompt.
    """
    n, device = len(prompts), prompts.hidden.device
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(steps, device=device)
    timesteps = scheduler.timesteps
    if at is None:
        low = min(margins[0], len(timesteps) - 1)
        high = max(len(timesteps) - margins[1], low + 1)
        stop = int(torch.randint(low, high, (1,), generator=generator))
    else:
        stop = int((timesteps == at).nonzero()[0])
    x = torch.randn((n, *predictor.shape), generator=generator).to(device)
    call = _guided(predictor, network, joined([unguided.repeated(n), prompts]), guidance)
    extra = pipe.prepare_extra_step_kwargs(generator, 0.0)
    x = _denoised(scheduler, x * scheduler.init_noise_sigma, timesteps[:stop], call, extra)
    now = timesteps[stop]
    return scheduler.scale_model_input(x, now), now.expand(n)


def _guided(
    predictor: Predictor, network: nn.Module, both: Conditions, guidance: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Predictions by classifier-free guidance; ``both`` are the prompts without, then with."""

    def predict(x: Tensor, now: Tensor) -> Tensor:
        predicted = predictor(network, torch.cat([x, x]), now.expand(2 * len(x)), both)
        without, with_prompt = predicted.chunk(2)
        return without + guidance * (with_prompt - without)

    return predict


def _denoised(
    scheduler: Any,
    x: Tensor,
    timesteps: Tensor,
    predict: Callable[[Tensor, Tensor], Tensor],
    extra: dict[str, Any],
) -> Tensor:
    for now in timesteps:
        guided = predict(scheduler.scale_model_input(x, now), now)
        x = scheduler.step(guided, now, x, return_dict=False, **extra)[0]
    return x


@dataclass(frozen=True)
class Pool:
    """Finished latents, drawn once by the base, from which every training step takes a few.

    Attributes:
        latents: shape (n, channels, h, w), on the pipeline's device.
        shows: number of the prompt of each, in the list they were drawn for; on the CPU.
    """

    latents: Tensor
    shows: Tensor

    def __len__(self) -> int:
        return len(self.shows)

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Prompt numbers (on the CPU) and latents at some places of the pool."""
        return self.shows[places], self.latents[places.to(self.latents.device)]

    def pick(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Prompt numbers and latents of ``n`` random entries, with replacement."""
        return self.at(torch.randint(0, len(self), (n,), generator=generator))


def draw_pool(
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    size: int,
    sampler: Sampler,
    *,
    guidance: float,
    seed: int,
    generator: torch.Generator,
    fill: bool = False,
    drawing: Callable[[Sequence[str], Sampler, float, int], Tensor] | None = None,
) -> Pool:
    """Draws latents by the pipeline as it is now.

    Args:
        drawing: of prompts, sampler, guidance and seed, in the place of ``draw``.
        size: at most so many, of prompts chosen at random, each once.
        fill: where there are fewer prompts, exactly so many: the prompts in turn.
        seed: of the drawings; ``generator`` chooses the prompts.
    """
    if fill and len(prompts) < size:
        shows = torch.arange(size) % len(prompts)
    else:
        shows = torch.randperm(len(prompts), generator=generator)[:size].sort().values
    chosen = [prompts[i] for i in shows.tolist()]
    drawing = drawing or partial(draw, pipe)
    return Pool(drawing(chosen, sampler, guidance, seed), shows)
