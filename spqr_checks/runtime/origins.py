"""The base as a pipeline, and what destroys it. Heavy inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.settings import Settings

DESTROYING_SEED = 0


def load_base(settings: Settings, device: str) -> DiffusionPipeline:
    """The unaligned base. Raises UserError for what cannot be loaded."""
    from spqr_checks.models.pipelines import load_pipeline

    return load_pipeline(settings.base, settings.dtype, device)


def destroy(pipe: DiffusionPipeline) -> None:
    """Shuffles the denoiser's weights: of the base, the zero of the quality axis."""
    from spqr_checks.models import weights

    weights.shuffle_denoiser(pipe, DESTROYING_SEED)
