"""Scissorhands: cuts the weights that the concept needs most, and trains the rest to do without.

Wu & Harandi, "Scissorhands: Scrub Data Influence via Connection Sensitivity in Networks" (ECCV
2024, arXiv 2401.06187; code: JingWu321/Scissorhands). The connection sensitivity of a weight,
``|Σ |∂L/∂w| · w|`` over draws of the diffusion loss on images to forget, says which are drawn
anew; then ``L_r + λ |e(x_t, c) − sg e(x_t, c')|²`` is trained. Defaults are the authors' for
nudity. As in their code, only weights of self-attention in two blocks of the way up are drawn
anew, wherever else the sensitive ones lie.

The paper projects gradients (as GEM does) so that retaining does not undo forgetting. The code
defines that and does not call it; here it is an option, with the forgetting loss as the memory,
which is our reading. ``compat`` repeats that the authors' loaders
give the first batch at every step.

Ours: the preservation loss, latents drawn by the base, and retaining prompts to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.forgetting import Forgetting, ForgettingOptions
from spqr_checks.alignment.training.options import Count, Weight
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import Tensor


class ScissorhandsOptions(ForgettingOptions):
    """Options of Scissorhands beside those that it shares with SalUn and EraseDiff.

    Attributes:
        sparsity: share of all weights that lies below the sensitive ones; 0.999 for objects.
        draws: batches that the sensitivity is summed over.
        blocks: beginnings of the names of modules whose ``attn1`` is cut. The default is the
            authors' output blocks 4 and 7, by the names of Stable Diffusion 1 in diffusers.
        lam: λ, weight of the forgetting loss.
        project: ``gem`` in the place of λ takes the weight that GEM's projection finds, so that
            the step forgets whatever retaining asks for.
        margin: least such weight.
        compat: the first images of both pools at every step.
    """

    batch: Count = 16
    steps: Count = 110
    sparsity: Annotated[float, Field(gt=0, lt=1)] = 0.995
    draws: Count = 10
    blocks: tuple[str, ...] = ("up_blocks.1.attentions.1.", "up_blocks.2.attentions.1.")
    lam: Weight = 0.1
    project: Literal["none", "gem"] = "none"
    margin: Weight = 0.5
    compat: bool = False


def sensitive(
    weights: Sequence[Tensor], gradients: Sequence[Tensor], sparsity: float
) -> list[Tensor]:
    """Where ``|gradient · weight|`` lies above the quantile of all entries jointly.

    The quantile is the k-th smallest, with ``k = int(sparsity · entries)``.
    """
    import torch

    found = [(g * w.detach()).abs() for w, g in zip(weights, gradients, strict=True)]
    flat = torch.cat([one.flatten().cpu() for one in found])
    threshold = float(flat.kthvalue(max(int(sparsity * len(flat)), 1)).values)
    return [one > threshold for one in found]


def drawn_anew(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """A matrix as Kaiming initialises it, uniform within ±√(6 / fan-in); zeros for a vector."""
    import torch

    if parameter.ndim < 2:
        return torch.zeros_like(parameter)
    bound = (6 / parameter[0].numel()) ** 0.5
    drawn: Tensor = torch.rand(parameter.shape, generator=generator) * 2 - 1
    scaled: Tensor = (bound * drawn).to(parameter)
    return scaled


def gem_weight(product: float, forgotten: float, margin: float) -> float:
    """v of GEM's dual with one memory m: the step is ``g + v m``, ``v = max(margin, −g·m / m·m)``.

    Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning" (NeurIPS 2017).
    """
    return max(margin, -product / (forgotten + 1e-3))


class Scissors(Forgetting[ScissorhandsOptions]):
    """One training by Scissorhands."""

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: ScissorhandsOptions
    ) -> None:
        super().__init__(pipe, request, options, "scissorhands")
        self.forgets_in_order = options.compat
        self.lesson_weight = options.lam if options.project == "none" else 1.0
        names = [name for name, _ in self.student.named_parameters()]
        self.cut = [n for n in names if n.startswith(options.blocks) and ".attn1." in n]
        if not self.cut:
            raise UserError(
                "method 'scissorhands': this UNet has no self-attention in "
                f"{', '.join(options.blocks)}; name its blocks with the option 'blocks'"
            )

    def started(self) -> None:
        """Draws the most sensitive weights of the named blocks anew."""
        import torch

        named = dict(self.student.named_parameters())
        required = {name: parameter.requires_grad for name, parameter in named.items()}
        weights = [parameter.requires_grad_(True) for parameter in named.values()]
        total = [torch.zeros_like(weight) for weight in weights]
        for _ in range(self.options.draws):
            loss = self.diffusion_loss(self.harmful, self.noisy())
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for one, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    one += gradient.abs()
        masks = dict(zip(named, sensitive(weights, total, self.options.sparsity), strict=True))
        with torch.no_grad():
            for name in self.cut:
                fresh = drawn_anew(named[name], self.generator)
                named[name].copy_(torch.where(masks[name], fresh, named[name]))
        for name, parameter in named.items():
            parameter.requires_grad_(required[name])

    def loss(self) -> Tensor:
        """Loss of one fresh batch."""
        if self.options.project == "none":
            return super().loss()
        retained, forgotten = self.retaining(), self.forgetting()
        product, _, square = self.products(retained, forgotten)
        weight = gem_weight(product, square, self.options.margin)
        return self.options.retain_weight * retained + weight * forgotten


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: ScissorhandsOptions,
    out: Path,
    report: Report,
) -> None:
    Scissors(pipe, request, options).run(out, report)


METHOD = Method("scissorhands", ScissorhandsOptions, _align)
