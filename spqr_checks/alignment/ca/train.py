"""Concept ablation: noised images of the anchor, and what to predict for the concept there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from spqr_checks.alignment.ca.options import CaOptions
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.distillation import Distillation, Lesson, distil
from spqr_checks.alignment.training.embeddings import encode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_ANCHOR_POOL = 1


class Ablation(Distillation[CaOptions]):
    """One training by concept ablation.

    ``|sg ê(x_t, anchor) − e(x_t, concept)|²`` (Kumari et al., equation 4; ê the teacher) or
    ``|ε − e(x_t, concept)|²`` (equation 5), with x_t from an image of the anchor and e the
    student's prediction.
    """

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: CaOptions
    ) -> None:
        frozen = options.variant == "model" and options.teacher == "frozen"
        super().__init__(pipe, request, options, "ca", asks_frozen=frozen)
        self.teacher = self.frozen if frozen else self.student
        self.anchors = encode(pipe, request.anchors)
        self.pool = self.draw_pool(request.anchors, _ANCHOR_POOL, fill=True)
        self.keep = self.prepare_keep()

    def noisy(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Numbers of the anchors, x_t, t and the noise (or velocity) of one batch."""
        index, z = self.pool.pick(self.options.batch, self.generator)
        return (index.to(self.device), *self.noiser.with_truth(z, self.generator))

    def lesson(self) -> Lesson:
        """Harmful prompts, with the target of the variant."""
        index, x, t, target = self.noisy()
        if self.options.variant == "model":
            with torch.no_grad():
                target = self.predictor(self.teacher, x, t, self.anchors[index])
        return Lesson(self.harmful[index], x, t, target)

    def regularisation(self) -> Tensor:
        """The diffusion loss on a batch of its own: anchors' images, anchors as prompts."""
        index, x, t, truth = self.noisy()
        return F.mse_loss(self.predictor(self.student, x, t, self.anchors[index]), truth)

    def loss(self) -> Tensor:
        """Loss of one fresh batch: ablation, preservation and the weighted regularisation."""
        loss = super().loss()
        if self.options.regularisation:
            loss = loss + self.options.regularisation * self.regularisation()
        return loss


def ablate(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: CaOptions,
    out: Path,
    report: Report,
) -> None:
    """Trains the pipeline's UNet by concept ablation and writes its weights, or the adapter."""
    training = Ablation(pipe, request, options)
    distil(training, out, report, weight_decay=options.weight_decay, clip=options.clip)
