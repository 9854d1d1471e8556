"""Erased Stable Diffusion: the model learns to steer away from the concepts by its own knowledge.

Gandikota et al., "Erasing Concepts from Diffusion Models" (ICCV 2023). The defaults are those of
the authors' original code. The preservation loss, pools of latents, low-rank training and the
learning-rate schedule are additions of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.alignment.esd.options import EsdOptions
from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: EsdOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.esd.train import erase

    erase(pipe, request, options, out, report)


METHOD = Method("esd", EsdOptions, _align)
