"""Erased Stable Diffusion: the model learns to steer away from the concepts by its own knowledge.

Gandikota et al., "Erasing Concepts from Diffusion Models" (ICCV 2023). The defaults are those of
the authors' original code. The preservation loss, pools of latents, low-rank training and the
learning-rate schedule are additions of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.distillation import Distillation, Question
from spqr_checks.alignment.training.options import ErasingOptions, Share, Weight

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

_CONCEPT_POOL, _ANCHOR_POOL = 1, 2


class EsdOptions(ErasingOptions):
    """Options of ESD, beside those that it shares with SDD and concept ablation.

    With ``target = "current"`` the defaults are those of the authors' current code: η 2, latents
    of the base, 200 steps, learning rate 5e-5.

    Attributes:
        target: with e0 the frozen model's prediction and c a harmful prompt, ``original``:
            e0("") − η (e0(c) − e0("")); ``current``: e0(c') − η (e0(c) − e0("")), where c' is
            ``erase_from``, or c; it is also what the student is asked and the latents show;
            ``anchor``: e0(anchor) − η (e0(c) − e0("")), an addition of ours, which with η = 0 is
            concept ablation.
        eta: η, the strength of the step away from the concept.
        erase_from: a wider prompt to erase the concepts from, for ``target=current``.
        latents: what the loss is taken at: latents drawn part of the way by the ``student`` or
            the frozen ``base``, or a ``pool`` drawn once by the base and noised to a random t.
        anchor_share: share of a batch whose latents show the anchor, for ``latents=pool``.
    """

    of_current: ClassVar[dict[str, Any]] = {
        "eta": 2.0,
        "latents": "base",
        "steps": 200,
        "learning_rate": 5e-5,
    }
    target: Literal["original", "current", "anchor"] = "original"
    eta: Weight = 1.0
    erase_from: str = ""
    latents: Literal["student", "base", "pool"] = "student"
    anchor_share: Share = 0.0

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_target(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if given.get("target") == "current":
            return {**cls.of_current, **given}
        if given.get("erase_from"):
            raise ValueError("'erase_from' has an effect with target = 'current' only")
        return given


def erased(unconditional: Tensor, concept: Tensor, start: Tensor, eta: float) -> Tensor:
    """ESD's target, ``start − η (concept − unconditional)``, from the frozen model's predictions.

    ``start`` is the unconditional prediction in ESD's equation 6.
    """
    return start - eta * (concept - unconditional)


class Erasure(Distillation[EsdOptions]):
    """One training by ESD."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: EsdOptions
    ) -> None:
        super().__init__(pipe, request, options, "esd", asks_frozen=True)
        wider = [options.erase_from] * len(request.harmful) if options.erase_from else None
        self.asked = self.encode(wider) if wider else self.harmful
        self.anchors = self.encode(request.anchors)
        if options.latents == "pool":
            self.concept_pool = self.draw_pool(wider or request.harmful, _CONCEPT_POOL)
            self.anchor_pool = (
                self.draw_pool(request.anchors, _ANCHOR_POOL) if options.anchor_share else None
            )
        self.keep = self.prepare_keep()

    def noisy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prompt numbers, x_t and t of one batch of harmful prompts."""
        import torch

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
        x, t = self.draw_partly(drawing, self.asked[index])
        return index, x, t

    def lesson(self) -> Question:
        """Harmful prompts, or what is wider than they, with ESD's target."""
        return self.question(*self.noisy())

    def question(self, index: Tensor, x: Tensor, t: Tensor) -> Question:
        """What the student is to predict for harmful prompts ``index`` at ``x`` and ``t``."""
        empty, concept = self.unconditional.repeated(len(x)), self.harmful[index]
        asked = self.asked[index] if self.options.erase_from else concept
        starts = {"original": empty, "current": asked, "anchor": self.anchors[index]}
        start = starts[self.options.target]
        prompts = {id(part): part for part in (start, empty, concept)}  # none is predicted twice

        def target(predicted: Sequence[Tensor]) -> Tensor:
            at = dict(zip(prompts, predicted, strict=True))
            return erased(at[id(empty)], at[id(concept)], at[id(start)], self.options.eta)

        return Question(self.asked[index], x, t, [*prompts.values()], target)


def erase(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: EsdOptions,
    out: Path,
    report: Report,
) -> None:
    """Trains the pipeline's denoiser by ESD and writes its weights, or the adapter."""
    Erasure(pipe, request, options).run(out, report)


METHOD = Method("esd", EsdOptions, erase, transformers=True)
