"""Concept Ablation: a prompt for the concept is given the anchor's images.

Kumari et al., "Ablating Concepts in Text-to-Image Diffusion Models" (ICCV 2023; code:
nupurkmr9/concept-ablation). The defaults are the authors' for styles and instances: keys and
values of cross-attention, 100 steps of 8 images, learning rate 2e-6 times these 8.

The paper's target is the pretrained model's prediction at the anchor; its code takes the student's
own at that moment, without gradient, to save memory. Here the first is the default. Augmented
images, masks and drawing without the concept as negative prompt are left out; the preservation
loss, low-rank training and the learning-rate schedule are additions of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.distillation import Distillation, Lesson
from spqr_checks.alignment.training.options import Count, ErasingOptions, Positive, Weight

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

_ANCHOR_POOL = 1


class CaOptions(ErasingOptions):
    """Options of concept ablation, beside those that it shares with ESD and SDD.

    Its latents are a pool of the anchors' images, drawn by the base and noised to a random t. The
    pool is filled: where there are fewer anchors, each is drawn several times.

    Attributes:
        variant: what the student is to predict for the concept, at a noised image of the anchor:
            ``model``, what the teacher predicts for the anchor; ``noise``, the noise itself (or
            the velocity).
        teacher: of the first variant: the ``frozen`` model, or the ``student`` at that moment.
        trains: ``x-strict`` keys and values of cross-attention, ``x`` all of it, ``all`` the
            denoiser.
        regularisation: weight of the diffusion loss on anchors' images with the anchors as
            prompts. 0 leaves it out; the authors take 1 (diffusers code) or 0.2 (CompVis code).
        weight_decay: of AdamW.
        clip: largest norm of the gradients; not clipped if not given. The authors' diffusers
            code clips at 1.
    """

    variant: Literal["model", "noise"] = "model"
    teacher: Literal["frozen", "student"] = "frozen"
    trains: Literal["x-strict", "x", "all"] = "x-strict"
    start_guidance: Weight = 6.0
    steps: Count = 100
    batch: Count = 8
    learning_rate: Positive = 1.6e-5
    regularisation: Weight = 0.0
    weight_decay: Weight = 1e-2
    clip: Positive | None = None


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
        self.anchors = self.encode(request.anchors)
        self.pool = self.draw_pool(request.anchors, _ANCHOR_POOL, fill=True)
        self.keep = self.prepare_keep()

    def noisy(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Numbers of the anchors, x_t, t and the noise (or velocity) of one batch."""
        index, z = self.pool.pick(self.options.batch, self.generator)
        return (index.to(self.device), *self.noiser.with_truth(z, self.generator))

    def lesson(self) -> Lesson:
        """Harmful prompts, with the target of the variant."""
        import torch

        index, x, t, target = self.noisy()
        if self.options.variant == "model":
            with torch.no_grad():
                target = self.predictor(self.teacher, x, t, self.anchors[index])
        return Lesson(self.harmful[index], x, t, target)

    def regularisation(self) -> Tensor:
        """The diffusion loss on a batch of its own: anchors' images, anchors as prompts."""
        import torch.nn.functional as F

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
    """Trains the pipeline's denoiser by concept ablation and writes its weights, or the adapter."""
    training = Ablation(pipe, request, options)
    training.run(out, report, weight_decay=options.weight_decay, clip=options.clip)


METHOD = Method("ca", CaOptions, ablate, transformers=True)
