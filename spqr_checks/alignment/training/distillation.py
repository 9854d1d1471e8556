"""What methods that train the UNet share: a student, and mostly that it learns predictions. Light.

The student is the pipeline's own UNet. In most of them it learns at every step to predict a target
for a prompt that asks for a concept; for prompts to keep it learns what the frozen model predicts.
The second loss is an addition of ours to all of them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.options import ErasingOptions

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from spqr_checks.alignment.training.latents import Pool
    from spqr_checks.alignment.training.noising import Noiser
    from spqr_checks.alignment.training.preservation import Keep
    from spqr_checks.alignment.training.unet import Predictor
    from spqr_checks.generation.conditions import Conditions

    Batch: TypeAlias = tuple[Conditions, Tensor, Tensor]
    """Prompts, x_t and t."""

OptionsT = TypeVar("OptionsT", bound=ErasingOptions)
_KEEP_POOL = 3
"""Pools are numbered, so that each has latents of its own; a method's own have lower numbers."""


@dataclass(frozen=True)
class Lesson:
    """One batch: at ``x`` and ``t`` the student is to predict ``target`` for ``prompts``."""

    prompts: Conditions
    x: Tensor
    t: Tensor
    target: Tensor


@dataclass(frozen=True)
class Question:
    """A lesson whose target is made of the frozen network's predictions.

    Attributes:
        told: prompts that it is asked with, each as many as ``x``; all at ``x`` and ``t``.
        target: of its predictions for each of these, in their order.
    """

    prompts: Conditions
    x: Tensor
    t: Tensor
    told: Sequence[Conditions]
    target: Callable[[Sequence[Tensor]], Tensor]


class StudentTraining(ABC, Generic[OptionsT]):
    """One training: encoded prompts, latents, the networks, and one stream of random numbers."""

    def __init__(
        self,
        pipe: DiffusionPipeline,
        request: AlignmentRequest,
        options: OptionsT,
        method: str,
        *,
        asks_frozen: bool,
    ) -> None:
        """Copies the network where a frozen one is asked, and encodes the harmful prompts.

        A subclass draws its pools after this and then sets ``keep``, in this order always: all
        of them use up random numbers.
        """
        import torch

        from spqr_checks.alignment.training.preservation import prompts_to_keep
        from spqr_checks.alignment.training.views import view_of
        from spqr_checks.models.weights import denoiser_of

        self.pipe, self.request, self.options = pipe, request, options
        self.view = view_of(pipe, request.sampler, method)
        self.student = denoiser_of(pipe)
        self.kept, self.near = prompts_to_keep(request)
        keeps = bool(self.kept) and options.keep_weight > 0
        self._frozen: nn.Module | None = None
        if asks_frozen or keeps:
            self._frozen = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.predictor: Predictor = self.view.predictor
        self.noiser: Noiser = self.view.noiser
        self.generator = torch.Generator("cpu").manual_seed(request.seed)
        self.unguided: Conditions = self.view.unguided
        self.unconditional, self.harmful = self.encode([""]), self.encode(request.harmful)
        self.keep: Keep | None = None

    @property
    def frozen(self) -> nn.Module:
        """The network as it was at the start. RuntimeError where nothing needs it."""
        if self._frozen is None:
            raise RuntimeError("this training holds no copy of the frozen network")
        return self._frozen

    @property
    def device(self) -> torch.device:
        return next(self.student.parameters()).device

    def encode(self, texts: Sequence[str]) -> Conditions:
        """Encoded texts, as the student's family has them."""
        found: Conditions = self.view.encode(texts)
        return found

    @property
    def sampling_steps(self) -> int:
        """Steps in which latents are drawn."""
        return self.options.sampling_steps or self.request.sampler.steps

    def draw_pool(
        self, prompts: Sequence[str], number: int, *, fill: bool = False, size: int | None = None
    ) -> Pool:
        """A pool of the base's latents; ``number`` tells pools of one training apart.

        ``size`` is that of the options if not given.
        """
        from spqr_checks.alignment.training.latents import draw_pool

        return draw_pool(
            self.pipe,
            prompts,
            size or self.options.pool,
            self.request.sampler.model_copy(update={"steps": self.sampling_steps}),
            guidance=self.options.start_guidance,
            seed=self.request.seed * 1_000_003 + number * 100_003,
            generator=self.generator,
            fill=fill,
            drawing=self.view.draw,
        )

    def prepare_keep(self) -> Keep | None:
        """Prompts to keep with their latents, if the options give them any weight."""
        from spqr_checks.alignment.training.preservation import Keep

        if not self.kept or not self.options.keep_weight:
            return None
        prompts, pool = self.encode(self.kept), self.draw_pool(self.kept, _KEEP_POOL)
        given = (self.unguided, pool, self.options, self.noiser, self.generator)
        return Keep(prompts, self.near, *given)

    def draw_partly(
        self,
        network: nn.Module,
        prompts: Conditions,
        margins: tuple[int, int] = (0, 0),
        at: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x_t and t of the prompts, drawn by a network until a random step, or a timestep."""
        return self.view.draw_partly(
            network,
            prompts,
            self.generator,
            steps=self.sampling_steps,
            guidance=self.options.start_guidance,
            margins=margins,
            at=at,
        )

    @abstractmethod
    def loss(self) -> Tensor:
        """Loss of one fresh batch."""

    def preserving(self) -> Tensor | float:
        """The weighted preservation loss of a fresh batch; 0 without prompts to keep."""
        import torch
        import torch.nn.functional as F

        if self.keep is None:
            return 0.0
        keep, x, t = self.keep.batch()
        with torch.no_grad():
            target = self.predictor(self.frozen, x, t, keep)
        return self.options.keep_weight * F.mse_loss(
            self.predictor(self.student, x, t, keep), target
        )

    def started(self) -> None:
        """Called once, when the student is in single precision and its adapter is on."""

    def stepped(self) -> None:
        """Called after every step of the optimiser."""

    def finished(self) -> None:
        """Called after the last step: the student becomes what is saved."""

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, the only parameters left that take gradients."""
        return self.view.trainable(self.options, self.request.seed)

    def train(
        self, report: Report, *, weight_decay: float = 0.0, clip: float | None = None
    ) -> None:
        """Trains the student, which is in single precision. UserError: it diverged."""
        from spqr_checks.alignment.training.training import optimise

        parameters = self.parameters()
        self.started()
        optimise(
            parameters,
            self.loss,
            self.options,
            learning_rate=self.options.learning_rate,
            report=report,
            weight_decay=weight_decay,
            clip=clip,
            stepped=self.stepped,
        )
        self.finished()
        self.student.requires_grad_(False)

    def run(
        self, out: Path, report: Report, *, weight_decay: float = 0.0, clip: float | None = None
    ) -> None:
        """Trains the pipeline's denoiser and writes its weights, or the adapter, into ``out``.

        Training runs in single precision; the weights are then of the pipeline's own again. Raises
        UserError: the training diverged; nothing is written then.
        """
        from spqr_checks.alignment.training.unet import ADAPTER, single_precision
        from spqr_checks.models import adapters, weights

        base_digest = weights.weights_digest(self.student)
        with single_precision(self.student):
            self.train(report, weight_decay=weight_decay, clip=clip)
            if self.options.rank:
                adapters.save_adapter(self.pipe, out, ADAPTER, {"base_digest": base_digest})
        if not self.options.rank:
            weights.save_denoiser(self.pipe, out)


class Distillation(StudentTraining[OptionsT]):
    """A training in which the student learns predictions.

    Attributes:
        lesson_weight: of the lesson in the loss.
    """

    lesson_weight = 1.0

    @abstractmethod
    def lesson(self) -> Lesson | Question:
        """A fresh batch."""

    def answered(
        self, asked: Lesson | Question, keep: Batch | None = None
    ) -> tuple[Lesson, Tensor]:
        """The lesson with its target, and what the frozen network predicts for a batch to keep.

        It is asked all of it in one call, which takes less time than two. Without a batch to keep
        the second is empty.
        """
        import torch

        from spqr_checks.generation.conditions import joined

        batches: list[Batch] = [] if keep is None else [keep]
        n = 0
        if isinstance(asked, Question):
            n = len(asked.told) * len(asked.x)
            batches[:0] = [(prompts, asked.x, asked.t) for prompts in asked.told]
        if not batches:
            assert isinstance(asked, Lesson)
            return asked, asked.x[:0]
        prompts, x, t = zip(*batches, strict=True)
        with torch.no_grad():
            predicted = self.predictor(self.frozen, torch.cat(x), torch.cat(t), joined(prompts))
        if isinstance(asked, Question):
            target = asked.target(predicted[:n].chunk(len(asked.told)))
            asked = Lesson(asked.prompts, asked.x, asked.t, target)
        return asked, predicted[n:]

    def loss(self) -> Tensor:
        """Loss of one fresh batch: the lesson's, plus the weighted one of prompts to keep."""
        import torch
        import torch.nn.functional as F

        from spqr_checks.generation.conditions import joined

        asked = self.lesson()
        if self.keep is None:
            lesson, _ = self.answered(asked)
            predicted = self.predictor(self.student, lesson.x, lesson.t, lesson.prompts)
            return self.lesson_weight * F.mse_loss(predicted, lesson.target)
        keep, keep_x, keep_t = self.keep.batch()
        lesson, keep_target = self.answered(asked, (keep, keep_x, keep_t))
        x, t, prompts, n = lesson.x, lesson.t, lesson.prompts, len(lesson.x)
        predicted = self.predictor(
            self.student, torch.cat([x, keep_x]), torch.cat([t, keep_t]), joined([prompts, keep])
        )
        kept = F.mse_loss(predicted[n:], keep_target)
        learned = self.lesson_weight * F.mse_loss(predicted[:n], lesson.target)
        return learned + self.options.keep_weight * kept
