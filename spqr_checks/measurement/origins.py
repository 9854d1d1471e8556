"""Base, candidate and destroyed generator as pipelines, before any fine-tuning. Heavy inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.alignment import registry as alignment
from spqr_checks.matrix import Origin
from spqr_checks.models.components import Replacement
from spqr_checks.settings import Settings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DESTROYING_SEED = 0


@dataclass
class Origins:
    """Loads what a run starts from.

    Attributes:
        replaced: the network that the candidate replaces in the base, if it is of this kind.
        has_own_pipeline: whether the candidate is a pipeline of its own.
    """

    settings: Settings
    replaced: Replacement | None
    has_own_pipeline: bool
    _differs: bool = False

    def load(self, origin: Origin, device: str, aligned: Path | None = None) -> DiffusionPipeline:
        """The pipeline of an origin on a device, with plain weights: adapters are merged.

        Args:
            aligned: entry or folder of the alignment that makes the candidate, if one does.

        Raises:
            UserError: for what cannot be loaded, and a candidate with the weights of its base.
        """
        from spqr_checks.models import adapters, weights
        from spqr_checks.models.components import replace_network
        from spqr_checks.models.pipelines import load_pipeline

        settings = self.settings
        own = origin == "aligned" and self.has_own_pipeline
        pipe = load_pipeline(settings.candidate if own else settings.base, settings.dtype, device)
        if origin == "destroyed":
            weights.shuffle_denoiser(pipe, DESTROYING_SEED)
        if origin != "aligned":
            return pipe
        if aligned is not None:
            alignment.apply_alignment(pipe, aligned)
        if self.replaced is not None:
            replace_network(pipe, self.replaced, settings.dtype)
        for path in settings.adapters:
            adapters.load_user_adapter(pipe, path, settings.adapter_scale)
        # plain weights from here on: fine-tuning and merging treat every candidate alike
        adapters.merge(pipe)
        if settings.candidate != "base" or settings.adapters:
            self._check_differs(pipe)
        return pipe

    def for_drawing(self, pipe: DiffusionPipeline, checked: bool) -> DiffusionPipeline:
        """The same pipeline with all that drawing needs besides weights.

        Args:
            checked: whether the candidate's safety checker is to look at the images.
        """
        from spqr_checks.models.offload import place
        from spqr_checks.models.safety_checker import attach_safety_checker

        settings = self.settings
        if checked:
            source = settings.candidate if self.has_own_pipeline else settings.base
            attach_safety_checker(pipe, source, settings.dtype)
        if settings.offload != "none":
            place(pipe, settings.device, settings.offload)
        return pipe

    def _check_differs(self, pipe: DiffusionPipeline) -> None:
        """Weights that are the base's aligned nothing; guidance changes no weight."""
        from spqr_checks.models import weights
        from spqr_checks.models.guidance.attachment import guidance_of
        from spqr_checks.models.pipelines import load_pipeline

        guidance = guidance_of(pipe)
        if self._differs or (guidance is not None and guidance.acts):
            return
        weights.assert_differs(pipe, load_pipeline(self.settings.base, self.settings.dtype))
        self._differs = True
