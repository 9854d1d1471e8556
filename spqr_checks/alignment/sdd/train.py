"""Safe self-Distillation Diffusion: its loss, and the teacher that follows the student."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.sdd.options import SddOptions
from spqr_checks.alignment.training.distillation import Distillation, Lesson, distil
from spqr_checks.alignment.training.embeddings import Conditions, encode
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_POOL = 1


class SelfDistillation(Distillation[SddOptions]):
    """One training by SDD: ``|sg e(z_t, "") − e(z_t, c)|²``, with e the student's prediction.

    Raises:
        UserError: the concepts are to be joined, and there are none.
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
        self.drawn = encode(pipe, drawn) if by_name else self.harmful
        self.joined = encode(pipe, [", ".join(request.concepts)]) if by_name else None
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

    @torch.no_grad()
    def stepped(self) -> None:
        """Teacher ← ema · teacher + (1 − ema) · student."""
        for teacher, student in self.pairs:
            teacher.mul_(self.options.ema).add_(student, alpha=1 - self.options.ema)

    @torch.no_grad()
    def finished(self) -> None:
        """What is saved is the teacher."""
        for teacher, student in self.pairs:
            student.copy_(teacher)


def self_distil(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: SddOptions,
    out: Path,
    report: Report,
) -> None:
    """Trains the pipeline's UNet by SDD and writes the teacher's weights, or its adapter."""
    training = SelfDistillation(pipe, request, options)
    distil(training, out, report, weight_decay=options.weight_decay, clip=options.clip)
