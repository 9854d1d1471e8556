"""What ESD, SDD and concept ablation share: a student that learns predictions.

The student is the pipeline's own UNet. At every step it learns to predict a target for a prompt
that asks for a concept; for prompts to keep it learns what the frozen model predicts. The second
loss is an addition of ours to all three methods.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spqr_checks.alignment.method import unet_of
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.embeddings import Conditions, encode, joined
from spqr_checks.alignment.training.erasing_options import ErasingOptions
from spqr_checks.alignment.training.keep import Keep, prompts_to_keep
from spqr_checks.alignment.training.latents import Noiser, Predictor, draw_partly
from spqr_checks.alignment.training.pools import Pool, draw_pool
from spqr_checks.alignment.training.trainables import ADAPTER, trainable
from spqr_checks.alignment.training.training import optimise
from spqr_checks.models import adapters, weights

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

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


class Distillation(ABC, Generic[OptionsT]):
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
        self.pipe, self.request, self.options = pipe, request, options
        self.student = unet_of(pipe, method)
        self.kept, self.near = prompts_to_keep(request)
        keeps = bool(self.kept) and options.keep_weight > 0
        self._frozen: nn.Module | None = None
        if asks_frozen or keeps:
            self._frozen = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.predictor = Predictor(pipe, request.sampler)
        self.noiser = Noiser(pipe)
        self.generator = torch.Generator("cpu").manual_seed(request.seed)
        self.unconditional = encode(pipe, [""])
        self.harmful = encode(pipe, request.harmful)
        self.keep: Keep | None = None

    @property
    def frozen(self) -> nn.Module:
        """The network as it was at the start. RuntimeError where nothing needs it."""
        if self._frozen is None:
            raise RuntimeError("this training holds no copy of the frozen network")
        return self._frozen

    @property
    def device(self) -> torch.device:
        return self.unconditional.hidden.device

    @property
    def sampling_steps(self) -> int:
        """Steps in which latents are drawn."""
        return self.options.sampling_steps or self.request.sampler.steps

    def draw_pool(self, prompts: Sequence[str], number: int, *, fill: bool = False) -> Pool:
        """A pool of the base's latents; ``number`` tells pools of one training apart."""
        return draw_pool(
            self.pipe,
            prompts,
            self.options.pool,
            self.request.sampler.model_copy(update={"steps": self.sampling_steps}),
            guidance=self.options.start_guidance,
            seed=self.request.seed * 1_000_003 + number * 100_003,
            generator=self.generator,
            fill=fill,
        )

    def prepare_keep(self) -> Keep | None:
        """Prompts to keep with their latents, if the options give them any weight."""
        if not self.kept or not self.options.keep_weight:
            return None
        return Keep(
            encode(self.pipe, self.kept),
            self.near,
            self.unconditional,
            self.draw_pool(self.kept, _KEEP_POOL),
            self.options,
            self.noiser,
            self.generator,
        )

    def draw_partly(self, network: nn.Module, prompts: Conditions) -> tuple[Tensor, Tensor]:
        """x_t and t of the prompts, drawn by a network until a random step."""
        return draw_partly(
            self.pipe,
            self.predictor,
            network,
            prompts,
            self.unconditional,
            steps=self.sampling_steps,
            guidance=self.options.start_guidance,
            generator=self.generator,
        )

    @abstractmethod
    def lesson(self) -> Lesson:
        """A fresh batch."""

    def loss(self) -> Tensor:
        """Loss of one fresh batch: the lesson's, plus the weighted one of prompts to keep."""
        lesson = self.lesson()
        x, t, prompts, n = lesson.x, lesson.t, lesson.prompts, len(lesson.x)
        if self.keep is None:
            return F.mse_loss(self.predictor(self.student, x, t, prompts), lesson.target)
        keep, keep_x, keep_t = self.keep.batch()
        with torch.no_grad():
            keep_target = self.predictor(self.frozen, keep_x, keep_t, keep)
        predicted = self.predictor(
            self.student, torch.cat([x, keep_x]), torch.cat([t, keep_t]), joined([prompts, keep])
        )
        kept = F.mse_loss(predicted[n:], keep_target)
        return F.mse_loss(predicted[:n], lesson.target) + self.options.keep_weight * kept

    def started(self) -> None:
        """Called once, when the student is in single precision and its adapter is on."""

    def stepped(self) -> None:
        """Called after every step of the optimiser."""

    def finished(self) -> None:
        """Called after the last step: the student becomes what is saved."""


def distil(
    distillation: Distillation[OptionsT],
    out: Path,
    report: Report,
    *,
    weight_decay: float = 0.0,
    clip: float | None = None,
) -> None:
    """Trains the pipeline's UNet and writes its weights, or the adapter, into ``out``.

    Training runs in single precision; the weights are then of the pipeline's own again.

    Raises:
        UserError: the training diverged; nothing is written then.
    """
    student, options = distillation.student, distillation.options
    dtype = next(student.parameters()).dtype
    base_digest = weights.weights_digest(student)
    student.float().eval()
    parameters = trainable(student, options, distillation.request.seed)
    distillation.started()
    optimise(
        parameters,
        lambda _: distillation.loss(),
        steps=options.steps,
        learning_rate=options.learning_rate,
        warmup=options.warmup,
        schedule=options.schedule,
        report=report,
        weight_decay=weight_decay,
        clip=clip,
        stepped=distillation.stepped,
    )
    distillation.finished()
    student.requires_grad_(False)
    if options.rank:
        adapters.save_adapter(distillation.pipe, out, ADAPTER, {"base_digest": base_digest})
    student.to(dtype)
    if not options.rank:
        weights.save_denoiser(distillation.pipe, out)
