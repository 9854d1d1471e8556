"""ResAlign: erases so that the concept stays erased where users' fine-tuning would lead.

Li et al., "Towards Resilient Safety-driven Unlearning for Diffusion Models against Downstream
Fine-tuning" (NeurIPS 2025, arXiv 2507.16302; code: AntigoneRandy/ResAlign). At each step users'
fine-tuning is simulated from the weights θ as they are, by configurations that are drawn at random,
to weights θ*. The loss is

    w_r L_r(θ) + L_u(θ) + λ mean L_u(θ*(θ)),

L_u the unlearning loss. A fine-tuning of a few steps stays near θ, as if it solved
``θ* = θ − γ ∇L_ft(θ*)``; so the gradient of the last term in θ is ``v = (I + γ H)⁻¹ g`` with g that
in θ* and H the Hessian of L_ft there, found by iterating ``v ← g − γ H v``. Where that does not
shrink, γ is halved and it begins anew, five times; else v is g.

Steps, learning rates, λ, what is trained, the number of simulated fine-tunings and of iterations
are the authors', and so is gradient ascent on images of the concept as L_u. Our reading: γ is the
sum of the simulated steps' rates, and the retain weight grows linearly from 1.6 to 2. Ours: as L_u
the concept may be predicted as its anchor; fine-tuning is simulated on images to retain with plain
or adaptive steps (the authors also vary data sets and low-rank training); and there is the
preservation loss.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.forgetting import Forgetting, ForgettingOptions
from spqr_checks.alignment.training.options import Count, Positive, Weight, Whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import DiffusionPipeline
    from torch import Tensor

_HALVINGS, _ROUNDING = 5, 1e-6


class ResAlignOptions(ForgettingOptions):
    """Options of ResAlign beside those that it shares with SalUn, EraseDiff and Scissorhands.

    Attributes:
        unlearning: L_u, ``ascent`` on the concept's diffusion loss, or the concept predicted as
            its anchor or ``pseudo`` (``anchor``).
        lam: λ.
        retain_weight: w_r at the beginning; ``retain_weight_end`` at the end.
        simulated: fine-tunings per step.
        inner_steps: of a fine-tuning.
        inner_rates: learning rates that one is drawn of.
        inner_optimisers: optimisers that one is drawn of.
        iterations: of v.
        most: largest norm of v; one that grows beyond is taken for one that does not shrink.
    """

    unlearning: Literal["ascent", "anchor"] = "ascent"
    steps: Count = 160
    batch: Count = 1
    learning_rate: Positive = 2e-4
    lam: Weight = 0.8
    retain_weight: Weight = 1.6
    retain_weight_end: Weight = 2.0
    simulated: Count = 3
    inner_steps: Count = 30
    inner_rates: tuple[Positive, ...] = (1e-5, 1e-4)
    inner_optimisers: Annotated[tuple[Literal["sgd", "adam"], ...], Field(min_length=1)] = (
        "sgd",
        "adam",
    )
    iterations: Whole = 5
    most: Positive = 1e3


Vector = list["Tensor"]


def implicit_gradient(
    g: Vector, product: Callable[[Vector], Vector], gamma: float, iterations: int, most: float
) -> Vector:
    """``v ≈ (I + γ H)⁻¹ g`` by iterating ``v ← g − γ H v``; g itself where that does not shrink.

    Args:
        product: H times a vector.
        gamma: γ at first.
        most: largest norm of v.
    """
    for _ in range(_HALVINGS):
        v, change = g, float("inf")
        for _ in range(iterations):
            new = [a - gamma * b for a, b in zip(g, product(v), strict=True)]
            moved = _norm([a - b for a, b in zip(new, v, strict=True)])
            shrinks = moved < change or moved <= _ROUNDING * _norm(g)
            if not (shrinks and _norm(new) < most):  # NaN is neither
                break
            v, change = new, moved
        else:
            return v
        gamma /= 2
    return g


def _norm(vector: Vector) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in vector))


class Resilient(Forgetting[ResAlignOptions]):
    """One training by ResAlign."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: ResAlignOptions
    ) -> None:
        super().__init__(pipe, request, options, "resalign")
        self.step = 0

    def unlearning(self) -> Tensor:
        """L_u at a fresh batch, by the weights as they are."""
        import torch.nn.functional as F

        if self.options.unlearning == "ascent":
            return -self.diffusion_loss(self.harmful, self.noisy())
        lesson = self.lesson()
        predicted = self.predictor(self.student, lesson.x, lesson.t, lesson.prompts)
        return F.mse_loss(predicted, lesson.target)

    def simulate(self) -> float:
        """Fine-tunes the student for a while; returns γ."""
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
        return rate * options.inner_steps

    def beyond(self) -> Vector:
        """Gradient in θ of ``L_u(θ*(θ))`` for one simulated fine-tuning; θ is then as before."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        trained, options = self.trained, self.options
        before = [parameter.detach().clone() for parameter in trained]
        held = [parameter.grad for parameter in trained]
        gamma = self.simulate()
        found = torch.autograd.grad(self.unlearning(), trained, allow_unused=True)
        g = [torch.zeros_like(p) if d is None else d for p, d in zip(trained, found, strict=True)]
        if options.iterations:
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

            g = implicit_gradient(g, product, gamma, options.iterations, options.most)
        with torch.no_grad():
            for parameter, kept, gradient in zip(trained, before, held, strict=True):
                parameter.copy_(kept)
                parameter.grad = gradient
        return g

    def loss(self) -> Tensor:
        """Loss of one fresh batch; that beyond a fine-tuning enters by its gradient, linearly."""
        import torch

        options, trained = self.options, self.trained
        extra: list[Vector] = []
        if options.lam:
            extra = [self.beyond() for _ in range(options.simulated)]
        done = self.step / max(options.steps - 1, 1)
        weight = options.retain_weight + done * (options.retain_weight_end - options.retain_weight)
        loss = self.unlearning() + weight * self.retaining() + self.preserving()
        for vector in extra:
            pairs = zip(trained, vector, strict=True)
            along = torch.stack([(p * v).sum() for p, v in pairs]).sum()
            # its value is nothing, its gradient is v
            loss = loss + options.lam / len(extra) * (along - along.detach())
        return loss

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
    Resilient(pipe, request, options).run(out, report)


METHOD = Method("resalign", ResAlignOptions, _align)
