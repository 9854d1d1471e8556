"""Safe Latent Diffusion: steers away from a safety concept at every step.

Schramowski et al., "Safe Latent Diffusion: Mitigating Inappropriate Degeneration in Diffusion
Models" (CVPR 2023). The paper's four configurations are options of the alignment method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spqr_checks.generation.guidance.base import Steering
from spqr_checks.generation.guidance.sld.parameters import SldParameters

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class SldGuidance(SldParameters):
    """The parameters, and how they are made ready for a pipeline."""

    def prepare(self, pipe: DiffusionPipeline) -> Steering:
        from spqr_checks.generation.guidance.sld.steering import SldSteering

        return SldSteering.made(self, pipe)


GUIDANCE = SldGuidance
