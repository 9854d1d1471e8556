"""ResAlign: erases so that the concept stays erased where users' fine-tuning would lead.

Li et al., "Towards Resilient Safety-driven Unlearning for Diffusion Models against Downstream
Fine-tuning" (NeurIPS 2025, arXiv 2507.16302; code: AntigoneRandy/ResAlign). At each step users'
fine-tuning is simulated from the weights θ as they are, by configurations that are drawn at random,
to weights θ*. The loss is, as the code has it,

    w_r |e(x'_t, c'') − e₀(x'_t, c'')|² + L_u(θ) + λ mean (L_u(θ*(θ)) − L_u(θ)),

with L_u the unlearning loss and e₀ the original model. A fine-tuning of a few steps stays near θ,
as if it solved ``θ* = argmin L_ft(θ') + |θ' − θ|²/2``; so the gradient of L_u(θ*(θ)) in θ is
``(I + H)⁻¹ g`` with g that in θ* and H the Hessian of L_ft there. It is found by some iterations
``v ← v − s (H + I) v + g``, from nothing and with s = 1, whose answer is ``s v``. Where
``v − s (H + I) v`` is longer than v, s is halved and it begins anew, five times; else that
fine-tuning is left out. The gradient of all is multiplied by ``meta_rate``, and w_r grows in the
second half of the training along a sigmoid.

Steps, learning rate, weight decay, λ, w_r, the number of simulated fine-tunings and of iterations
are the authors', and so is gradient ascent on images of the concept as L_u. Deviations: the weights
themselves are trained, where the authors train adapters of rank 4 on all attention and merge them;
and the limit of norms is that of the answer alone, where theirs, 0.2, is that of all the adapters'
gradient. Ours: as L_u the concept may be predicted as its anchor; fine-tuning is simulated on
images to retain with plain or adaptive steps (the authors also vary data sets and low-rank
training); and there is the preservation loss.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.forgetting import Forgetting, ForgettingOptions
from spqr_checks.alignment.training.options import Count, Positive, Share, Weight

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import DiffusionPipeline
    from torch import Tensor

_HALVINGS = 5


class ResAlignOptions(ForgettingOptions):
    """Options of ResAlign beside those that it shares with SalUn, EraseDiff and Scissorhands.

    Attributes:
        unlearning: L_u, ``ascent`` on the concept's diffusion loss, or the concept predicted as
            its anchor or ``pseudo`` (``anchor``).
        lam: λ.
        meta_rate: factor of the gradient. Adam divides it out again, but for its ε.
        retain_weight: w_r in the first half; ``retain_weight_end`` at the end.
        simulated: fine-tunings per step.
        inner_steps: of a fine-tuning.
        inner_rates: learning rates that one is drawn of.
        inner_optimisers: optimisers that one is drawn of.
        iterations: of v; with one it is g itself.
        most: largest norm of ``s v``; one beyond is taken for one that does not shrink.
        weight_decay: of AdamW.
    """

    unlearning: Literal["ascent", "anchor"] = "ascent"
    steps: Count = 160
    batch: Count = 1
    learning_rate: Positive = 2e-4
    lam: Share = 0.8
    meta_rate: Positive = 0.3
    retain_weight: Weight = 1.6
    retain_weight_end: Weight = 2.0
    simulated: Count = 3
    inner_steps: Count = 30
    inner_rates: tuple[Positive, ...] = (1e-5, 1e-4)
    inner_optimisers: Annotated[tuple[Literal["sgd", "adam"], ...], Field(min_length=1)] = (
        "sgd",
        "adam",
    )
    iterations: Count = 5
    most: Positive = 1e3
    weight_decay: Weight = 1e-2


Vector = list["Tensor"]


def implicit_gradient(
    g: Vector, product: Callable[[Vector], Vector], iterations: int, most: float
) -> Vector | None:
    """``s Σ_k (I − s (I + H))ᵏ g``, k < iterations, which tends to ``(I + H)⁻¹ g``.

    None where that does not shrink with any s.

    Args:
        product: H times a vector.
        most: largest norm of the answer.
    """
    for halvings in range(_HALVINGS + 1):
        s, v = 0.5**halvings, g
        for _ in range(iterations - 1):  # the first, from nothing, gives g
            moved = [a - s * (a + b) for a, b in zip(v, product(v), strict=True)]
            if not _growth(v, moved) <= 1:  # NaN is neither
                break
            v = [a + b for a, b in zip(moved, g, strict=True)]
        else:
            if _norm(v) * s < most:
                return [s * part for part in v]
    return None


def _growth(before: Vector, after: Vector) -> float:
    """Mean over parameters of how much longer theirs became."""
    pairs = [(float(a.norm()), float(b.norm())) for a, b in zip(before, after, strict=True)]
    ratios = [after / before for before, after in pairs if before > 0]
    return sum(ratios) / max(len(ratios), 1)


def ramp(step: int, steps: int) -> float:
    """From 0 to 1 by a sigmoid over the second half of ``steps``; steps are counted from 0."""
    progress = 2 * (step + 1) / steps - 1
    return 0.0 if progress < 0 else 1 / (1 + math.exp(-10 * (progress - 0.5)))


def _norm(vector: Vector) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in vector))


class Resilient(Forgetting[ResAlignOptions]):
    """One training by ResAlign."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: ResAlignOptions
    ) -> None:
        super().__init__(pipe, request, options, "resalign", asks_frozen=True)
        self.step = 0

    def unlearning(self) -> Tensor:
        """L_u at a fresh batch, by the weights as they are."""
        import torch.nn.functional as F

        if self.options.unlearning == "ascent":
            return -self.diffusion_loss(self.harmful, self.noisy())
        lesson = self.lesson()
        predicted = self.predictor(self.student, lesson.x, lesson.t, lesson.prompts)
        return F.mse_loss(predicted, lesson.target)

    def holding(self) -> Tensor:
        """How far predictions at images to retain are from the original model's."""
        import torch
        import torch.nn.functional as F

        index, x, t, _ = self.noisy(True)
        with torch.no_grad():
            target = self.predictor(self.frozen, x, t, self.retained[index])
        return F.mse_loss(self.predictor(self.student, x, t, self.retained[index]), target)

    def simulate(self) -> None:
        """Fine-tunes the student for a while."""
        import torch

        options = self.options

        def drawn(n: int) -> int:
            return int(torch.randint(0, n, (1,), generator=self.generator))

        rate = options.inner_rates[drawn(len(options.inner_rates))]
        name = options.inner_optimisers[drawn(len(options.inner_optimisers))]
        kind = torch.optim.SGD if name == "sgd" else torch.optim.Adam
        trained = self.trained
        optimiser = kind(trained, lr=rate)
        for _ in range(options.inner_steps):
            gradients = torch.autograd.grad(self.retaining(), trained, allow_unused=True)
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def beyond(self) -> Vector | None:
        """Gradient in θ of ``L_u(θ*(θ))`` for one simulated fine-tuning; θ is then as before.

        None where it cannot be found.
        """
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        trained, options = self.trained, self.options
        before = [parameter.detach().clone() for parameter in trained]
        held = [parameter.grad for parameter in trained]
        self.simulate()
        found = torch.autograd.grad(self.unlearning(), trained, allow_unused=True)
        g = [torch.zeros_like(p) if d is None else d for p, d in zip(trained, found, strict=True)]
        answer: Vector | None = g
        if options.iterations > 1:
            with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
                first = torch.autograd.grad(
                    self.retaining(), trained, create_graph=True, allow_unused=True
                )
            pairs = [(p, d) for p, d in zip(trained, first, strict=True) if d is not None]

            def product(v: Vector) -> Vector:
                its = [part for part, d in zip(v, first, strict=True) if d is not None]
                gradients = torch.autograd.grad(
                    [d for _, d in pairs], trained, its, retain_graph=True, allow_unused=True
                )
                return [
                    torch.zeros_like(p) if d is None else d
                    for p, d in zip(trained, gradients, strict=True)
                ]

            answer = implicit_gradient(g, product, options.iterations, options.most)
        with torch.no_grad():
            for parameter, kept, gradient in zip(trained, before, held, strict=True):
                parameter.copy_(kept)
                parameter.grad = gradient
        return answer

    def loss(self) -> Tensor:
        """Loss of one fresh batch; that beyond a fine-tuning enters by its gradient, linearly."""
        import torch

        options, trained = self.options, self.trained
        extra: list[Vector] = []
        if options.lam:
            found = [self.beyond() for _ in range(options.simulated)]
            extra = [vector for vector in found if vector is not None]
        weight, end = options.retain_weight, options.retain_weight_end
        weight += ramp(self.step, options.steps) * (end - weight)
        loss = (1 - options.lam) * self.unlearning() + weight * self.holding() + self.preserving()
        for vector in extra:
            pairs = zip(trained, vector, strict=True)
            along = torch.stack([(p * v).sum() for p, v in pairs]).sum()
            # its value is nothing, its gradient is v
            loss = loss + options.lam / options.simulated * (along - along.detach())
        return options.meta_rate * loss

    def stepped(self) -> None:
        """Counts the steps."""
        self.step += 1


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: ResAlignOptions,
    out: Path,
    report: Report,
) -> None:
    Resilient(pipe, request, options).run(out, report, weight_decay=options.weight_decay)


METHOD = Method("resalign", ResAlignOptions, _align)
