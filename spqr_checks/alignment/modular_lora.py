"""Modular LoRA: safety in an adapter of its own, beside which users' fine-tuning is put.

Kim et al., "Safety Alignment Backfires: Preventing the Re-emergence of Suppressed Concepts in
Fine-tuned Text-to-Image Diffusion Models" (arXiv 2412.00357). Fine-tuning on top of a safe model
learns to undo its safety. So the safety adapter ΔW_safe is trained on the original weights W0, the
users' fine-tuning ΔW_ft too, with the safety adapter detached, and what draws is
W0 + ΔW_safe + ΔW_ft.

The paper has no public code. Rank, alpha, steps and learning rates are as reported by others of
its experiments (rank 4, alpha 4, 1500 steps, 1e-4 with ESD and 1e-5 with SDD); that the adapter is
on cross-attention, as in the authors' code of SDD and ESD, is a choice of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from spqr_checks.alignment import modular
from spqr_checks.alignment.esd import EsdOptions, erase
from spqr_checks.alignment.method import Method, Options
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.sdd import SddOptions, self_distil
from spqr_checks.alignment.training.options import Count, Positive

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_LOSSES = ("esd", "sdd")


class EsdAdapterOptions(EsdOptions):
    """Options of ESD, where it trains a safety adapter."""

    of_current = {"eta": 2.0, "latents": "base"}
    rank: Count = 4
    steps: Count = 1500
    learning_rate: Positive = 1e-4


class SddAdapterOptions(SddOptions):
    """Options of SDD, where it trains a safety adapter."""

    rank: Count = 4


class ModularLoraOptions(Options):
    """Options of Modular LoRA.

    Attributes:
        loss: what the safety adapter is trained with.
        esd, sdd: options of that loss, as those of the method of its name; a rank is needed. Only
            those of the chosen loss can be given.
    """

    loss: Literal["esd", "sdd"] = "esd"
    esd: EsdAdapterOptions | None = None
    sdd: SddAdapterOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_the_chosen_loss(cls, given: Any) -> Any:
        """Fills in the chosen loss's options, and refuses those that would have no effect."""
        if not isinstance(given, dict):
            return given
        loss = given.get("loss", "esd")
        if loss not in _LOSSES:
            return given  # refused for that
        for other in _LOSSES:
            if other != loss and given.get(other) is not None:
                raise ValueError(f"the loss is {loss!r}, options of {other!r} have no effect")
        return given | {loss: {} if given.get(loss) is None else given[loss]}


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: ModularLoraOptions,
    out: Path,
    report: Report,
) -> None:
    if options.esd is not None:
        erase(pipe, request, options.esd, out, report)
    else:
        assert options.sdd is not None
        self_distil(pipe, request, options.sdd, out, report)
    modular.seal(out)


METHOD = Method("modular-lora", ModularLoraOptions, _align, attach="base", transformers=True)
