"""Erased Stable Diffusion: the loss, what it trains, and its training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spqr_checks.alignment.esd import EsdOptions, Trains
from spqr_checks.alignment.parts.embeddings import Conditions, encode, joined, unet_of
from spqr_checks.alignment.parts.latents import Noiser, Predictor, draw, draw_partly
from spqr_checks.alignment.parts.training import optimise
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.models import adapters, weights

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_ADAPTER = "alignment"
_LORA_TARGETS: dict[Trains, tuple[str, ...]] = {
    "x": tuple(f"attn2.{name}" for name in adapters.TARGETS),
    "x-strict": ("attn2.to_k", "attn2.to_v"),
    "u": (*(f"attn1.{name}" for name in adapters.TARGETS), "ff.net.0.proj", "ff.net.2"),
    "all": (*adapters.TARGETS, "ff.net.0.proj", "ff.net.2"),
}


def erased(unconditional: Tensor, concept: Tensor, start: Tensor, eta: float) -> Tensor:
    """ESD's target, ``start − η (concept − unconditional)``, from the frozen model's predictions.

    ``start`` is the unconditional prediction (ESD, equation 6) or that for the anchor (its current
    code); with η = 0 and an anchor the target is that of concept ablation (Kumari et al., 2023).
    """
    return start - eta * (concept - unconditional)


def is_trained(name: str, trains: Trains) -> bool:
    """Whether a UNet parameter of this name belongs to what the variant trains."""
    match trains:
        case "x":
            return "attn2." in name
        case "x-strict":
            return "attn2.to_k." in name or "attn2.to_v." in name
        case "u":
            return "attn2." not in name
        case "all":
            return True


class Erasure:
    """One training: encoded prompts, latents, frozen and trained network."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: EsdOptions
    ) -> None:
        self.pipe, self.options, self.request = pipe, options, request
        self.student = unet_of(pipe, "esd")
        self.frozen = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.predictor = Predictor(pipe, request.sampler)
        self.noiser = Noiser(pipe)
        self.generator = torch.Generator("cpu").manual_seed(request.seed)
        self.unconditional = encode(pipe, [""])
        self.harmful = encode(pipe, request.harmful)
        # look-alikes come first, so that a share of every batch can be drawn from them
        near = list(dict.fromkeys(request.lookalikes))
        self.near = len(near)
        kept = near + [p for p in request.keep if p not in set(near)]
        self.keeps = bool(kept) and options.keep_weight > 0
        self.anchors = encode(pipe, request.anchors) if options.target == "current" else None
        if options.latents == "pool":
            self.concept_pool = self._pool(request.harmful, options.pool, 1)
            self.anchor_pool = (
                self._pool(request.anchors, options.pool, 2) if options.anchor_share else None
            )
        if self.keeps:
            self.keep = encode(pipe, kept)
            self.keep_pool = self._pool(kept, options.pool, 3)

    def _pool(self, prompts: list[str], limit: int, which: int) -> tuple[Tensor, Tensor]:
        """Latents of at most ``limit`` prompts, drawn by the base, and the prompts' indices."""
        order = torch.randperm(len(prompts), generator=self.generator)[:limit].sort().values
        seed = self.request.seed * 1_000_003 + which * 100_003
        chosen = [prompts[i] for i in order.tolist()]
        sampler = self.request.sampler
        if self.options.sampling_steps is not None:
            sampler = sampler.model_copy(update={"steps": self.options.sampling_steps})
        return draw(self.pipe, chosen, sampler, self.options.start_guidance, seed), order

    def _integers(self, high: int, n: int, low: int = 0) -> Tensor:
        return torch.randint(low, high, (n,), generator=self.generator)

    def _coin(self, probability: float, n: int) -> Tensor:
        return torch.rand(n, generator=self.generator) < probability

    def _noisy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt indices, x_t and t of one batch of harmful prompts."""
        options, n = self.options, self.options.batch
        device = self.unconditional.hidden.device
        if options.latents == "pool":
            latents, order = self.concept_pool
            pick = self._integers(len(order), n)
            index, z = order[pick], latents[pick.to(device)]
            if self.anchor_pool is not None:
                latents, order = self.anchor_pool
                pick = self._integers(len(order), n)
                swap = self._coin(options.anchor_share, n)
                index = torch.where(swap, order[pick], index)
                z = torch.where(swap.to(device)[:, None, None, None], latents[pick.to(device)], z)
            x, t = self.noiser(z, self.generator)
            return index.to(device), x, t
        index = self._integers(len(self.harmful), n).to(device)
        x, t = draw_partly(
            self.pipe,
            self.predictor,
            self.student if options.latents == "student" else self.frozen,
            self.harmful[index],
            self.unconditional,
            options.sampling_steps or self.request.sampler.steps,
            options.start_guidance,
            self.generator,
        )
        return index, x, t

    def _kept(self) -> tuple[Conditions, Tensor, Tensor]:
        """Prompts, x_t and t of one batch of prompts to keep; some prompts are dropped to ""."""
        n = self.options.keep_batch or self.options.batch
        latents, order = self.keep_pool
        pick = self._integers(len(order), n)
        near = int((order < self.near).sum())
        if 0 < near < len(order):
            from_near = self._coin(self.options.lookalike_share, n)
            others = self._integers(len(order), n, low=near)
            pick = torch.where(from_near, self._integers(near, n), others)
        device = latents.device
        x, t = self.noiser(latents[pick.to(device)], self.generator)
        named = ~self._coin(self.options.keep_unconditional, n).to(device)
        return self.keep[order[pick].to(device)].where(named, self.unconditional), x, t

    @torch.no_grad()
    def target(self, index: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """What the student is to predict for harmful prompts ``index`` at ``x`` and ``t``."""
        options, n = self.options, len(x)
        prompts: list[Conditions] = []
        if self.anchors is not None:
            prompts.append(self.anchors[index])
        if self.anchors is None or options.eta:
            prompts.append(self.unconditional.repeated(n))
        if options.eta:
            prompts.append(self.harmful[index])
        k = len(prompts)
        predicted = self.predictor(
            self.frozen, x.repeat(k, 1, 1, 1), t.repeat(k), joined(prompts)
        ).chunk(k)
        if not options.eta:
            return predicted[0]
        return erased(predicted[-2], predicted[-1], predicted[0], options.eta)

    def loss(self) -> Tensor:
        """Loss of one fresh batch: erasure, plus the weighted preservation of prompts to keep."""
        index, x, t = self._noisy()
        target = self.target(index, x, t)
        prompts, n = self.harmful[index], len(x)
        if not self.keeps:
            return F.mse_loss(self.predictor(self.student, x, t, prompts), target)
        keep, keep_x, keep_t = self._kept()
        with torch.no_grad():
            keep_target = self.predictor(self.frozen, keep_x, keep_t, keep)
        predicted = self.predictor(
            self.student, torch.cat([x, keep_x]), torch.cat([t, keep_t]), joined([prompts, keep])
        )
        kept = F.mse_loss(predicted[n:], keep_target)
        return F.mse_loss(predicted[:n], target) + self.options.keep_weight * kept


def trainable(student: nn.Module, options: EsdOptions, seed: int) -> list[nn.Parameter]:
    """Freezes the UNet but for what the variant trains, or adds the adapter that is trained."""
    student.requires_grad_(False)
    if options.rank:
        targets = _LORA_TARGETS[options.trains]
        alpha = options.rank if options.alpha is None else options.alpha
        return list(adapters.add_lora(student, options.rank, alpha, targets, seed, name=_ADAPTER))
    chosen = [p for name, p in student.named_parameters() if is_trained(name, options.trains)]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def erase(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: EsdOptions,
    out: Path,
    report: Report,
) -> None:
    """Trains the pipeline's UNet and writes its weights, or the adapter, into ``out``.

    Training runs in single precision; the weights are then of the pipeline's own again.
    """
    erasure = Erasure(pipe, request, options)
    student = erasure.student
    dtype = next(student.parameters()).dtype
    base_digest = weights.weights_digest(student)
    student.float().eval()
    optimise(
        trainable(student, options, request.seed),
        lambda _: erasure.loss(),
        steps=options.steps,
        learning_rate=options.learning_rate,
        warmup=options.warmup,
        schedule=options.schedule,
        report=report,
    )
    student.requires_grad_(False)
    if options.rank:
        adapters.save_adapter(pipe, out, _ADAPTER, {"base_digest": base_digest})
    student.to(dtype)
    if not options.rank:
        weights.save_denoiser(pipe, out)
