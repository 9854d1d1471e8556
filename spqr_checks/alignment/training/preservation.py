"""What holds a model at its base's predictions: for prompts to keep, and at pure noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.latents import Pool, draw_pool
from spqr_checks.alignment.training.noising import ErrorOf, Noiser
from spqr_checks.alignment.training.options import PreferenceOptions, TrainingOptions
from spqr_checks.alignment.training.unet import adapter_off
from spqr_checks.alignment.training.views import View
from spqr_checks.generation.conditions import Conditions
from spqr_checks.models.weights import denoiser_of


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

    def __init__(self, view: View, seed: int) -> None:
        self.view, self.seed = view, seed
        self.network: nn.Module = denoiser_of(view.pipe)
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def at(self, x: Tensor, t: Tensor, prompts: Conditions) -> Tensor:
        with adapter_off(self.network), torch.no_grad():
            reference = self.view.predictor(self.network, x, t, prompts)
        return F.mse_loss(self.view.predictor(self.network, x, t, prompts), reference)


class Kept(_Distance):
    """Preservation for adapters: the distance for prompts to keep.

    The batches are those of ESD's preservation loss. Their latents are drawn by the base, as the
    run draws images, when this is made.
    """

    def __init__(self, view: View, request: AlignmentRequest, options: PreferenceOptions) -> None:
        super().__init__(view, request.seed + 2)
        texts, near = prompts_to_keep(request)
        sampler, generator = request.sampler, self.generator
        prompts = view.encode(texts)
        pool = draw_pool(
            view.pipe,
            texts,
            options.pool,
            sampler,
            guidance=sampler.guidance,
            seed=self.seed,
            generator=generator,
            drawing=view.draw,
        )
        self.keep = Keep(prompts, near, view.unguided, pool, options, view.noiser, generator)

    @classmethod
    def asked(
        cls, view: View, request: AlignmentRequest, options: PreferenceOptions
    ) -> Kept | None:
        """The term, if it is wanted and there are prompts to keep."""
        wanted = options.keep_weight > 0 and (request.keep or request.lookalikes)
        return cls(view, request, options) if wanted else None

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
    2024) and its code. There the noise is that of the pairs; here it is drawn apart. Where the last
    time is one of noise alone (flow matching), every prediction says the same noise, and the
    distance is that of the network's own target whatever ``error`` is.
    """

    def __init__(self, view: View, request: AlignmentRequest, batch: int, error: ErrorOf) -> None:
        super().__init__(view, request.seed + 1)
        self.unconditional = view.encode([""]).repeated(batch)
        device = next(self.network.parameters()).device
        self.t = view.noiser.objective.schedule[-1].repeat(batch).to(device)
        self.factor = float(view.noiser.factor(error, self.t[:1])) or 1.0

    def loss(self) -> Tensor:
        """The unweighted term at fresh noise."""
        x = torch.randn((len(self.t), *self.view.shape), generator=self.generator)
        return self.factor * self.at(x.to(self.t.device), self.t, self.unconditional)
