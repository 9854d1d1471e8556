"""Erased Stable Diffusion: the latents its loss is taken at, and its target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spqr_checks.alignment.esd.options import EsdOptions
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.distillation import Distillation, Lesson, distil
from spqr_checks.alignment.training.embeddings import Conditions, encode, joined

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_CONCEPT_POOL, _ANCHOR_POOL = 1, 2


def erased(unconditional: Tensor, concept: Tensor, start: Tensor, eta: float) -> Tensor:
    """ESD's target, ``start − η (concept − unconditional)``, from the frozen model's predictions.

    ``start`` is the unconditional prediction (ESD, equation 6) or that for the anchor (its current
    code); with η = 0 and an anchor the target is that of concept ablation (Kumari et al., 2023).
    """
    return start - eta * (concept - unconditional)


class Erasure(Distillation[EsdOptions]):
    """One training by ESD."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: EsdOptions
    ) -> None:
        super().__init__(pipe, request, options, "esd", asks_frozen=True)
        self.anchors = encode(pipe, request.anchors) if options.target == "current" else None
        if options.latents == "pool":
            self.concept_pool = self.draw_pool(request.harmful, _CONCEPT_POOL)
            self.anchor_pool = (
                self.draw_pool(request.anchors, _ANCHOR_POOL) if options.anchor_share else None
            )
        self.keep = self.prepare_keep()

    def noisy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt numbers, x_t and t of one batch of harmful prompts."""
        options, n, device = self.options, self.options.batch, self.device
        if options.latents == "pool":
            index, z = self.concept_pool.pick(n, self.generator)
            if self.anchor_pool is not None:
                anchor_index, anchor_z = self.anchor_pool.pick(n, self.generator)
                swap = torch.rand(n, generator=self.generator) < options.anchor_share
                index = torch.where(swap, anchor_index, index)
                z = torch.where(swap.to(device)[:, None, None, None], anchor_z, z)
            x, t = self.noiser(z, self.generator)
            return index.to(device), x, t
        index = torch.randint(0, len(self.harmful), (n,), generator=self.generator).to(device)
        drawing = self.student if options.latents == "student" else self.frozen
        x, t = self.draw_partly(drawing, self.harmful[index])
        return index, x, t

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

    def lesson(self) -> Lesson:
        """Harmful prompts with ESD's target."""
        index, x, t = self.noisy()
        return Lesson(self.harmful[index], x, t, self.target(index, x, t))


def erase(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: EsdOptions,
    out: Path,
    report: Report,
) -> None:
    """Trains the pipeline's UNet by ESD and writes its weights, or the adapter, into ``out``."""
    distil(Erasure(pipe, request, options), out, report)
