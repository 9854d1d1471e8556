"""Concept Ablation: a prompt for the concept is given the anchor's images.

Kumari et al., "Ablating Concepts in Text-to-Image Diffusion Models" (ICCV 2023; code:
nupurkmr9/concept-ablation). The defaults are the authors' for styles and instances: keys and
values of cross-attention, 100 steps of 8 images, learning rate 2e-6 times these 8.

The paper's target is the pretrained model's prediction at the anchor; its code takes the student's
own at that moment, without gradient, to save memory. Here the first is the default. Augmented
images, masks and drawing without the concept as negative prompt are left out; the preservation
loss, low-rank training and the learning-rate schedule are additions of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.alignment.ca.options import CaOptions
from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: CaOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.ca.train import ablate

    ablate(pipe, request, options, out, report)


METHOD = Method("ca", CaOptions, _align)
