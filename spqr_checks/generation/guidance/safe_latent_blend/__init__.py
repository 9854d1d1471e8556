"""Safe latent blend: the latents of a prompt are drawn towards those of its safe version.

Our reconstruction of Vice et al., "Safety Without Semantic Disruptions: Editing-free Safe Image
Generation via Context-preserving Dual Latent Reconstruction" (arXiv 2411.13982). From the paper
come the two latent streams (the prompt's and its safe embedding's), their tunable weighted sum and
a threshold tau_gc for the global context. The embedding, the schedule and the gate are choices of
ours, described in ``steering.subspace`` and ``.steering``; the authors' code is not public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spqr_checks.generation.guidance.base import Steering
from spqr_checks.generation.guidance.safe_latent_blend.parameters import SafeLatentBlendParameters

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class SafeLatentBlendGuidance(SafeLatentBlendParameters):
    """The parameters, and how they are made ready for a pipeline."""

    def prepare(self, pipe: DiffusionPipeline) -> Steering:
        from spqr_checks.generation.guidance.safe_latent_blend.steering import BlendSteering

        return BlendSteering.made(self, pipe)


GUIDANCE = SafeLatentBlendGuidance
