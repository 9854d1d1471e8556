"""What holds a model at its base's predictions: for prompts to keep, and at pure noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.latents import Pool, draw_pool
from spqr_checks.alignment.training.options import PreferenceOptions, TrainingOptions
from spqr_checks.alignment.training.unet import (
    ErrorOf,
    Noiser,
    Predictor,
    adapter_off,
    error_factor,
)
from spqr_checks.generation.conditions import Conditions, encode, unguided


def prompts_to_keep(request: AlignmentRequest) -> tuple[list[str], int]:
    """Prompts to keep, each once and the look-alikes first, and the number of look-alikes."""
    near = list(dict.fromkeys(request.lookalikes))
    return near + [p for p in request.keep if p not in set(near)], len(near)


@dataclass(frozen=True)
class Keep:
    """Prompts to keep with latents that the base drew for them.

    Attributes:
        prompts: all of them, encoded; the first ``near`` are look-alikes.
        pool: latents of some of them, in their order.
    """

    prompts: Conditions
    near: int
    unguided: Conditions
    pool: Pool
    options: TrainingOptions
    noiser: Noiser
    generator: torch.Generator

    def batch(self) -> tuple[Conditions, Tensor, Tensor]:
        """Prompts, x_t and t of one random batch; some prompts are dropped."""
        options, generator, total = self.options, self.generator, len(self.pool)
        n = options.keep_batch or options.batch
        pick = torch.randint(0, total, (n,), generator=generator)
        near = int((self.pool.shows < self.near).sum())
        if 0 < near < total:
            from_near = torch.rand(n, generator=generator) < options.lookalike_share
            others = torch.randint(near, total, (n,), generator=generator)
            close = torch.randint(0, near, (n,), generator=generator)
            pick = torch.where(from_near, close, others)
        shown, latents = self.pool.at(pick)
        x, t = self.noiser(latents, generator)
        named = torch.rand(n, generator=generator) >= options.keep_unconditional
        prompts = self.prompts[shown.to(latents.device)]
        return prompts.where(named.to(latents.device), self.unguided), x, t


class _Distance:
    """Mean squared distance between the adapted and the plain network's predictions."""

    def __init__(self, pipe: DiffusionPipeline, request: AlignmentRequest, seed: int) -> None:
        self.network: nn.Module = pipe.unet
        self.predictor, self.seed = Predictor(pipe, request.sampler), seed
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def at(self, x: Tensor, t: Tensor, prompts: Conditions) -> Tensor:
        with adapter_off(self.network), torch.no_grad():
            reference = self.predictor(self.network, x, t, prompts)
        return F.mse_loss(self.predictor(self.network, x, t, prompts), reference)


class Kept(_Distance):
    """Preservation for adapters: the distance for prompts to keep.

    The batches are those of ESD's preservation loss. Their latents are drawn by the base, as the
    run draws images, when this is made.
    """

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: PreferenceOptions
    ) -> None:
        super().__init__(pipe, request, request.seed + 2)
        texts, near = prompts_to_keep(request)
        sampler, generator = request.sampler, self.generator
        prompts = encode(pipe, texts)
        pool = draw_pool(
            pipe,
            texts,
            options.pool,
            sampler,
            guidance=sampler.guidance,
            seed=self.seed,
            generator=generator,
        )
        self.keep = Keep(prompts, near, unguided(pipe), pool, options, Noiser(pipe), generator)

    @classmethod
    def asked(
        cls, pipe: DiffusionPipeline, request: AlignmentRequest, options: PreferenceOptions
    ) -> Kept | None:
        """The term, if it is wanted and there are prompts to keep."""
        wanted = options.keep_weight > 0 and (request.keep or request.lookalikes)
        return cls(pipe, request, options) if wanted else None

    def restart(self) -> None:
        """Goes back to the first batch, for the training of another expert."""
        self.generator.manual_seed(self.seed)

    def loss(self) -> Tensor:
        """The unweighted term at a fresh batch."""
        prompts, x, t = self.keep.batch()
        return self.at(x, t, prompts)


class PriorPreservation(_Distance):
    """DUO's second term: the distance at pure noise and without a prompt, (x_T, T − 1, "").

    Park et al., "Direct Unlearning Optimization for Robust and Safe Text-to-Image Models" (NeurIPS
    2024) and its code. There the noise is that of the pairs; here it is drawn apart.
    """

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, batch: int, error: ErrorOf
    ) -> None:
        super().__init__(pipe, request, request.seed + 1)
        self.unconditional = encode(pipe, [""]).repeated(batch)
        schedule = Noiser(pipe)
        device = self.unconditional.hidden.device
        self.t = torch.full((batch,), schedule.timesteps - 1, device=device)
        self.factor = float(error_factor(schedule, error, self.t[:1]))

    def loss(self) -> Tensor:
        """The unweighted term at fresh noise."""
        x = torch.randn((len(self.t), *self.predictor.shape), generator=self.generator)
        return self.factor * self.at(x.to(self.t.device), self.t, self.unconditional)
