"""Parameters of the safe latent blend, and when they can work. Light: no torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import Guidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.choices import Sampler

Share = Annotated[float, Field(ge=0, le=1)]


class SafeLatentBlendParameters(Guidance):
    """Parameters of the blend.

    Attributes:
        weight: w of z ← w z_safe + (1 − w) z.
        tau: share of the steps that come before the first blend: they lay out the image.
        rank: dimensions of the concept subspace, at most.
        threshold: only prompts whose similarity to the concept subspace is above it are blended
            (our reading of the paper's switch); None blends every prompt.
        harmful, anchors: prompts with the concept and, one for each, without; the concept
            subspace is computed from them.
    """

    kind: Literal["safe-latent-blend"] = "safe-latent-blend"
    weight: Share
    tau: Annotated[float, Field(ge=0, lt=1)]
    rank: Annotated[int, Field(ge=1)]
    threshold: Annotated[float, Field(ge=0, lt=1)] | None
    harmful: Annotated[tuple[str, ...], Field(min_length=1)]
    anchors: tuple[str, ...]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.anchors) != len(self.harmful):
            raise ValueError("one anchor is needed for each harmful prompt")
        return self

    @property
    def acts(self) -> bool:
        return self.weight > 0

    def first(self, steps: int) -> int:
        """Index of the first sampler step after which latents are blended: ⌈tau · steps⌉."""
        # rounded, or 0.7 of 10 steps would be the eighth
        return math.ceil(round(self.tau * steps, 6))

    def check(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        if self.first(sampler.steps) >= sampler.steps:
            raise UserError(
                f"safe-latent-blend: tau {self.tau:g} leaves none of the sampler's "
                f"{sampler.steps} steps to blend; set its option 'tau' lower"
            )
