"""AlignGuard (SafetyDPO): a DPO expert per category of harm, merged into one LoRA.

Liu et al., "AlignGuard: Scalable Safety Alignment for Text-to-Image Generation" (ICCV 2025, arXiv
2412.10493). Loss and defaults of the experts are those of the authors' code. Their images, their
pairs' captions in part and Co-Merge were not published: here the base draws the pairs itself,
and Co-Merge is our reconstruction (see ``parts/merging.py``).

Deviations: latents as the sampler leaves them instead of encoded image files, and no random flips.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.alignment.alignguard.options import AlignGuardOptions
from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: AlignGuardOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.alignguard.train import align_by_experts

    align_by_experts(pipe, request, options, out, report)


METHOD = Method("alignguard", AlignGuardOptions, _align)
