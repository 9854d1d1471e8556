"""Safe latent blend: while images are drawn, latents are drawn towards those of a safe prompt.

Our reconstruction of Vice et al., "Safety Without Semantic Disruptions: Editing-free Safe Image
Generation via Context-preserving Dual Latent Reconstruction" (arXiv 2411.13982); see
``generation.guidance.safe_latent_blend`` for what is theirs and what is ours. No training: the
weights stay the base's, and the entry holds parameters and prompts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spqr_checks.alignment.method import Method, Options
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.generation.guidance.safe_latent_blend import SafeLatentBlendGuidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class SafeLatentBlendOptions(Options):
    """Options of the blend. The defaults are ours.

    Attributes:
        weight: w of z ← w z_safe + (1 − w) z, applied after every blended step; 1 is the image of
            the safe prompt itself.
        tau: share of the steps that come before the first blend: they lay out the image.
        rank: dimensions of the concept subspace that the safe prompt lacks.
        threshold: blend only prompts whose similarity to the concept subspace, in [0, 1], is
            above this; every prompt if not given.
    """

    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    tau: Annotated[float, Field(ge=0, lt=1)] = 0.2
    rank: Annotated[int, Field(ge=1)] = 4
    threshold: Annotated[float, Field(ge=0, lt=1)] | None = None


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: SafeLatentBlendOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.generation.guidance.base import attach_guidance
    from spqr_checks.generation.guidance.registry import save_guidance

    guidance = SafeLatentBlendGuidance(
        **options.model_dump(), harmful=tuple(request.harmful), anchors=tuple(request.anchors)
    )
    guidance.check(pipe, request.sampler)
    attach_guidance(pipe, guidance)
    save_guidance(guidance, out)


# users fine-tune the UNet, which is the base's own: one training serves both
METHOD = Method("safe-latent-blend", SafeLatentBlendOptions, _align, attach="base")
