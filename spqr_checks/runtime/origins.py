"""Base and destroyed generator as pipelines. Heavy inside."""

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


def load_destroyed(settings: Settings, device: str) -> DiffusionPipeline:
    """The base with shuffled weights, the zero of the quality axis. Errors as `load_base`."""
    from spqr_checks.models import weights

    pipe = load_base(settings, device)
    weights.shuffle_denoiser(pipe, DESTROYING_SEED)
    return pipe
