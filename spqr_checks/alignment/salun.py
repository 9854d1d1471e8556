"""SalUn: only the weights that matter for the concept are trained to predict another prompt.

Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in Both Image
Classification and Generation" (ICLR 2024, arXiv 2310.12508; code: OPTML-Group/Unlearn-Saliency).
Defaults are the authors' for nudity: half of all weights, Adam at 1e-5, 100 steps of 8 images, α
0.1. For objects they take α 0.5 and five epochs.

Ours: the preservation loss, latents drawn by the base, and retaining prompts to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.forgetting import Forgetting, ForgettingOptions, Noised
from spqr_checks.alignment.training.options import Count, Weight

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor


class SalunOptions(ForgettingOptions):
    """Options of SalUn beside those that it shares with EraseDiff and Scissorhands.

    Attributes:
        share: share of the trained weights that may change.
        mask_guidance: g in the loss whose gradient says which; 7.5 as in the authors' code.
        retain_weight: α.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    mask_guidance: Weight = 7.5
    steps: Count = 100
    retain_weight: Weight = 0.1


def most_salient(gradients: Sequence[Tensor], share: float) -> list[Tensor]:
    """1 for the given share of entries with the largest |gradient|, over all tensors jointly.

    Exactly ``int(share · entries)`` are 1; among equals those that come first.
    """
    import torch

    sizes = [gradient.numel() for gradient in gradients]
    flat = torch.cat([gradient.abs().flatten() for gradient in gradients])
    order = torch.argsort(flat, descending=True, stable=True)
    mask = torch.zeros_like(flat)
    mask[order[: int(share * len(flat))]] = 1
    parts = mask.split(sizes)
    return [part.view_as(of) for part, of in zip(parts, gradients, strict=True)]


class Saliency(Forgetting[SalunOptions]):
    """One training by SalUn."""

    def noised_in_turn(self) -> list[Noised]:
        """Every image to forget once, noised, batch by batch."""
        import torch

        numbers = torch.arange(len(self.forget_pool)).split(self.options.batch)
        batches = [self.forget_pool.at(some) for some in numbers]
        noised = [(i, *self.noiser.with_truth(z, self.generator)) for i, z in batches]
        return [(index.to(self.device), x, t, truth) for index, x, t, truth in noised]

    def masks(self) -> list[Tensor]:
        """The masks of the trained parameters, by the gradient of
        ``−|ε − ((1 + g) e(x_t, c) − g e(x_t, ""))|²`` summed over the images to forget.
        """
        import torch
        import torch.nn.functional as F

        trained, g = self.trained, self.options.mask_guidance
        total = [torch.zeros_like(parameter) for parameter in trained]
        for index, x, t, truth in self.noised_in_turn():
            with_prompt = self.predictor(self.student, x, t, self.harmful[index])
            without = self.predictor(self.student, x, t, self.unconditional.repeated(len(x)))
            loss = -F.mse_loss((1 + g) * with_prompt - g * without, truth)
            gradients = torch.autograd.grad(loss, trained, allow_unused=True)
            for one, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    one += gradient
        return most_salient(total, self.options.share)

    def started(self) -> None:
        """Masks every gradient: Adam never moves a weight whose gradient has always been zero."""
        self.hooks = [
            parameter.register_hook(mask.mul)
            for parameter, mask in zip(self.trained, self.masks(), strict=True)
        ]

    def finished(self) -> None:
        """Takes the masks off."""
        for hook in self.hooks:
            hook.remove()


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: SalunOptions,
    out: Path,
    report: Report,
) -> None:
    Saliency(pipe, request, options, "salun").run(out, report)


METHOD = Method("salun", SalunOptions, _align)
