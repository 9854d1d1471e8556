"""Parameters of Safe Latent Diffusion, and when they can work. Light: no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import Guidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.choices import Sampler


class SldParameters(Guidance):
    """Parameters of SLD.

    Attributes:
        safety_prompt: names what is steered away from (the safety concept S).
        warmup: δ, sampler steps before the first that is steered.
        scale: s_S, how fast the element-wise scale grows to 1; 0 steers nothing.
        threshold: λ; elements where e_c − e_s ≥ λ are left alone.
        momentum_scale: s_m, weight of the momentum.
        momentum_beta: β_m, what the momentum keeps from one evaluation to the next.
    """

    kind: Literal["sld"] = "sld"
    safety_prompt: str
    warmup: Annotated[int, Field(ge=0)]
    scale: Annotated[float, Field(ge=0)]
    threshold: float
    momentum_scale: Annotated[float, Field(ge=0)]
    momentum_beta: Annotated[float, Field(ge=0, lt=1)]

    @property
    def acts(self) -> bool:
        return self.scale > 0

    def check(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        from spqr_checks.generation.guidance.steering.noise import check_scheduler

        if sampler.guidance <= 1:
            raise UserError(
                "SLD works through classifier-free guidance and needs sampler.guidance > 1, "
                f"not {sampler.guidance:g}"
            )
        if self.warmup >= sampler.steps:
            raise UserError(
                f"SLD's warm-up of {self.warmup} steps leaves none of the sampler's "
                f"{sampler.steps} to steer; set its option 'warmup' lower, or preset = \"max\""
            )
        check_scheduler(pipe.scheduler)
