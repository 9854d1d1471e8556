"""Safe self-Distillation Diffusion: for the concepts, the model learns its own unprompted guess.

Kim et al., "Towards Safe Self-Distillation of Internet-Scale Text-to-Image Diffusion Models"
(ICML 2023 workshop; code: nannullna/safe-diffusion). Both sides of the loss are the student's; its
exponential moving average, the teacher, draws the latents and is what is saved.

The defaults are the authors'. Their paper and README take the loss at the joined concepts and draw
single ones; their training script has the two the other way round. Here it is as in the paper.
Harmful prompts, pools of latents, the preservation loss, low-rank training and the learning-rate
schedule are additions of ours. With an adapter, the average is that of its two factors.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.parts.erasing_options import ErasingOptions
from spqr_checks.alignment.request import AlignmentRequest, Report

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class SddOptions(ErasingOptions):
    """Options of SDD, beside those that it shares with ESD and concept ablation.

    Attributes:
        concept: the prompts of the loss. ``joined``: all concepts, joined by commas, while the
            latents are drawn for one concept after the other; ``harmful``: harmful prompts chosen
            at random, for both.
        latents: drawn part of the way by the ``teacher``, or a ``pool`` drawn once by the base
            and noised to a random t. A pool of concepts is filled: each is drawn several times.
        weight_decay: of AdamW.
        clip: largest norm of the gradients.
        ema: what the teacher keeps of itself at each step.
    """

    concept: Literal["joined", "harmful"] = "joined"
    latents: Literal["teacher", "pool"] = "teacher"
    steps: Annotated[int, Field(ge=1)] = 1500
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: SddOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.parts.self_distillation import self_distil

    self_distil(pipe, request, options, out, report)


METHOD = Method("sdd", SddOptions, _align)
