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
from typing import TYPE_CHECKING

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.sdd.options import SddOptions

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: SddOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.sdd.train import self_distil

    self_distil(pipe, request, options, out, report)


METHOD = Method("sdd", SddOptions, _align)
