"""Safe self-Distillation Diffusion: for the concepts, the model learns its own unprompted guess.

Kim et al., "Towards Safe Self-Distillation of Internet-Scale Text-to-Image Diffusion Models"
(ICML 2023 workshop; code: nannullna/safe-diffusion). Both sides of the loss are the student's; its
exponential moving average, the teacher, draws the latents and is what is saved.

The defaults are the authors'. Their paper and README take the loss at the joined concepts and draw
single ones; their training script has the two the other way round. Here it is as in the paper.
Harmful prompts, pools of latents, the preservation loss, low-rank training and the learning-rate
schedule are additions of ours. With an adapter, the average is that of its two factors.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.distillation import Distillation, Lesson
from spqr_checks.alignment.training.options import Count, ErasingOptions, Positive, Weight
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from spqr_checks.generation.conditions import Conditions

_POOL = 1


class SddOptions(ErasingOptions):
    """Options of SDD, beside those that it shares with ESD and concept ablation.

    Attributes:
        concept: the prompts of the loss. ``joined``: all concepts, joined by commas, while the
            latents are drawn for one concept after the other; ``harmful``: harmful prompts chosen
            at random, for both.
        latents: drawn part of the way by the ``teacher``, or a ``pool`` drawn once by the base
            and noised to a random t. A pool of concepts is filled: each is drawn several times.
        weight_decay: of AdamW.
        clip: largest norm of the gradients.
        ema: what the teacher keeps of itself at each step.
    """

    concept: Literal["joined", "harmful"] = "joined"
    latents: Literal["teacher", "pool"] = "teacher"
    steps: Count = 1500
    weight_decay: Weight = 1e-4
    clip: Positive | None = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999


class SelfDistillation(Distillation[SddOptions]):
    """One training by SDD: ``|sg e(z_t, "") − e(z_t, c)|²``, with e the student's prediction.

    Raises UserError: the concepts are to be joined, and there are none.
    """

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: SddOptions
    ) -> None:
        super().__init__(pipe, request, options, "sdd", asks_frozen=False)
        if options.concept == "joined" and not request.concepts:
            raise UserError(
                "method 'sdd' joins the names of the concepts, and the training set names none; "
                "say concept = 'harmful' to take its harmful prompts"
            )
        by_name = options.concept == "joined"
        drawn = request.concepts if by_name else request.harmful
        self.drawn = self.encode(drawn) if by_name else self.harmful
        self.joined = self.encode([", ".join(request.concepts)]) if by_name else None
        self.next = 0
        self.pool = (
            self.draw_pool(drawn, _POOL, fill=by_name) if options.latents == "pool" else None
        )
        self.keep = self.prepare_keep()
        # until the first step, the average over the student's steps is the student
        self.teacher: nn.Module = self.student
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []

    def noisy(self) -> tuple[Conditions, Tensor, Tensor]:
        """Prompts of the loss, x_t and t of one batch."""
        import torch

        n = self.options.batch
        if self.pool is not None:
            index, z = self.pool.pick(n, self.generator)
            x, t = self.noiser(z, self.generator)
            return self.asked(index.to(self.device)), x, t
        if self.joined is not None:
            index = (torch.arange(n) + self.next) % len(self.drawn)
            self.next = (self.next + n) % len(self.drawn)
        else:
            index = torch.randint(0, len(self.drawn), (n,), generator=self.generator)
        index = index.to(self.device)
        x, t = self.draw_partly(self.teacher, self.drawn[index])
        return self.asked(index), x, t

    def asked(self, index: Tensor) -> Conditions:
        """Prompts of the loss where the latents show ``index``."""
        return self.drawn[index] if self.joined is None else self.joined.repeated(len(index))

    def lesson(self) -> Lesson:
        """The concepts, with what the student itself predicts without a prompt."""
        import torch

        prompts, x, t = self.noisy()
        with torch.no_grad():
            target = self.predictor(self.student, x, t, self.unconditional.repeated(len(x)))
        return Lesson(prompts, x, t, target)

    def started(self) -> None:
        """Makes the teacher, a copy of the student as it is about to be trained."""
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        slow = dict(self.teacher.named_parameters())
        self.pairs = [
            (slow[name], parameter)
            for name, parameter in self.student.named_parameters()
            if parameter.requires_grad
        ]

    def stepped(self) -> None:
        """Teacher ← ema · teacher + (1 − ema) · student."""
        for teacher, student in self.pairs:
            teacher.data.mul_(self.options.ema).add_(student.data, alpha=1 - self.options.ema)

    def finished(self) -> None:
        """What is saved is the teacher."""
        for teacher, student in self.pairs:
            student.data.copy_(teacher.data)


def self_distil(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: SddOptions,
    out: Path,
    report: Report,
) -> None:
    """Trains the pipeline's denoiser by SDD and writes the teacher's weights, or its adapter."""
    training = SelfDistillation(pipe, request, options)
    training.run(out, report, weight_decay=options.weight_decay, clip=options.clip)


METHOD = Method("sdd", SddOptions, self_distil, transformers=True)
