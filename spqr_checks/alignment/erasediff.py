"""EraseDiff: retains what it should under the constraint that the concept is predicted otherwise.

Wu et al., "Erasing Undesirable Influence in Diffusion Models" (CVPR 2025, arXiv 2401.05779; code:
JingWu321/EraseDiff): the bilevel problem "retain, where the forgetting loss f is least" by a first
order method (BOME), as ``L_r + λ (f − f*)`` with f* what a few steps on f alone reach.

The authors' code, with a fixed λ, leaves nothing of f* in the gradient but through Adam's moments,
and of its K passes only the last stays in the weights; its loaders give the first batch at every
step. ``compat`` repeats that. The default is what remains as a sound loss, ``L_r + λ f`` on
shuffled images. Steps, batch, λ and what is trained are those of the authors' script for nudity
(160 steps are enough, they say).

Ours: the preservation loss, latents drawn by the base, retaining prompts to keep, and η, which the
authors do not give.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.forgetting import Forgetting, ForgettingOptions
from spqr_checks.alignment.training.options import Count, Trains, Weight

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor


class EraseDiffOptions(ForgettingOptions):
    """Options of EraseDiff beside those that it shares with SalUn and Scissorhands.

    Attributes:
        balance: λ is ``fixed``, or at each step ``max(η − cos(∇L_r, ∇f), 0)`` (``gradients``).
        lam: the fixed λ.
        eta: η.
        compat: the authors' passes, each from the same weights, and their first batches; ``steps``
            are then whole epochs, ``2 · passes · pass_steps`` each.
        passes: K of an epoch; for ``compat``.
        pass_steps: steps of a pass; for ``compat``.
    """

    trains: Trains = "u"
    batch: Count = 16
    steps: Count = 160
    balance: Literal["fixed", "gradients"] = "fixed"
    lam: Weight = 1.0
    eta: Weight = 0.1
    compat: bool = False
    passes: Count = 2
    pass_steps: Count = 40

    @model_validator(mode="before")
    @classmethod
    def _has_an_effect(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if not given.get("compat") and (said := sorted({"passes", "pass_steps"} & given.keys())):
            raise ValueError(f"{said[0]!r} has an effect with compat = true only")
        return given

    @model_validator(mode="after")
    def _ends_with_an_epoch(self) -> Self:
        epoch = 2 * self.passes * self.pass_steps
        if self.compat and self.steps % epoch:
            raise ValueError(
                f"{self.steps} steps end within an epoch of compat = true, which has "
                f"2 · passes · pass_steps = {epoch}; give whole epochs"
            )
        return self


class Bilevel(Forgetting[EraseDiffOptions]):
    """One training by EraseDiff.

    With ``compat`` an epoch has K rounds of two passes: steps on f, after which the weights are
    again those of the epoch's start, and steps on the whole loss. Adam's moments go on.
    """

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: EraseDiffOptions
    ) -> None:
        super().__init__(pipe, request, options, "erasediff")
        self.forgets_in_order = options.compat
        self.step = 0
        self.kept_weights: list[Tensor] = []

    @property
    def _place(self) -> tuple[int, int]:
        """Number of the pass within its epoch, even for those on f, and of the step within it."""
        number, step = divmod(self.step, self.options.pass_steps)
        return number % (2 * self.options.passes), step

    def loss(self) -> Tensor:
        """Loss of one fresh batch."""
        options, (number, step) = self.options, self._place
        if options.compat and number == step == 0:
            self.kept_weights = [parameter.detach().clone() for parameter in self.trained]
        alone = options.compat and number % 2 == 0
        fixed = options.balance == "fixed"
        self.lesson_weight = options.lam if fixed and not alone else 1.0
        if alone:
            return self.forgetting()
        if fixed:
            return super().loss()
        retained, forgotten = self.retaining(), self.forgetting()
        both, one, other = self.products(retained, forgotten)
        lam = max(options.eta - both / max(math.sqrt(one * other), 1e-30), 0.0)
        return options.retain_weight * retained + lam * forgotten

    def stepped(self) -> None:
        """After a pass on f the weights are as the epoch's start had them."""
        import torch

        number, step = self._place
        self.step += 1
        if self.options.compat and number % 2 == 0 and step + 1 == self.options.pass_steps:
            with torch.no_grad():
                for parameter, kept in zip(self.trained, self.kept_weights, strict=True):
                    parameter.copy_(kept)


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: EraseDiffOptions,
    out: Path,
    report: Report,
) -> None:
    Bilevel(pipe, request, options).run(out, report)


METHOD = Method("erasediff", EraseDiffOptions, _align)
