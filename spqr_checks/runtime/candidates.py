"""The candidate as a pipeline, before any fine-tuning. Heavy inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spqr_checks.alignment.registry import apply_alignment
from spqr_checks.runtime.origins import load_base

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import DiffusionPipeline

    from spqr_checks.models.components import Replacement
    from spqr_checks.settings import Settings


@dataclass
class Candidate:
    """Puts the candidate together.

    Attributes:
        replaced: the network that the candidate replaces in the base, if it is of this kind.
        has_own_pipeline: whether the candidate is a pipeline of its own.
    """

    settings: Settings
    replaced: Replacement | None
    has_own_pipeline: bool
    _differs: bool = False

    def change(self, pipe: DiffusionPipeline, aligned: Path | None = None) -> None:
        """Makes the candidate of a pipeline of `source`, with plain weights: adapters are merged.

        Args:
            aligned: entry or folder of the alignment that makes the candidate, if one does.

        Raises:
            UserError: for what cannot be loaded, and a candidate with the weights of its base.
        """
        from spqr_checks.models import adapters
        from spqr_checks.models.components import replace_network

        settings = self.settings
        if aligned is not None:
            apply_alignment(pipe, aligned)
        if self.replaced is not None:
            replace_network(pipe, self.replaced, settings.dtype)
        for path in settings.adapters:
            scale, alpha = settings.adapter_scale, settings.adapter_alpha
            adapters.load_user_adapter(pipe, path, scale, alpha=alpha)
        # plain weights from here on: fine-tuning and merging treat every candidate alike
        adapters.merge(pipe)
        if settings.candidate != "base" or settings.adapters:
            self._check_differs(pipe)

    def attach_checker(self, pipe: DiffusionPipeline) -> None:
        """Has the candidate's safety checker look at the images; UserError if it has none."""
        from spqr_checks.models.components import attach_safety_checker

        attach_safety_checker(pipe, self.source, self.settings.dtype)

    @property
    def source(self) -> str:
        """The pipeline that it is made of."""
        return self.settings.candidate if self.has_own_pipeline else self.settings.base

    def _check_differs(self, pipe: DiffusionPipeline) -> None:
        """Weights that are the base's aligned nothing; guidance changes no weight."""
        from spqr_checks.generation.guidance.base import guidance_of
        from spqr_checks.models import weights

        guidance = guidance_of(pipe)
        if not self._differs and not (guidance is not None and guidance.acts):
            weights.assert_differs(pipe, load_base(self.settings, "cpu"))
            self._differs = True
