"""Community adapters: LoRA files that somebody else trained, put on at a stated scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field

from spqr_checks.adaptations.kind import AdaptationKind, Given
from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.models import lora_files
from spqr_checks.models.sources import source_recipe

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def _acts(scale: float) -> float:
    if scale == 0:
        raise ValueError("an adapter at scale 0 does nothing")
    return scale


Strength = Annotated[float, Field(ge=-10, le=10), AfterValidator(_acts)]


class Adapter(AdaptationKind):
    """Adapters that act together, W + Σ scale · (alpha / r) · B A (Hu et al., arXiv 2106.09685).

    Any LoRA that `models.adapters.load_user_adapter` understands. They are merged into the weights,
    which rounds once.

    Attributes:
        files: LoRA files, PEFT folders or Hub ids.
        scale: of each of them.
        alpha: of files that do not say it: a number, or ``rank``.
    """

    places: ClassVar[frozenset[str]] = frozenset({"files"})

    files: tuple[str, ...] = ()
    scale: Strength = 1.0
    alpha: str = ""

    def contents(self) -> Mapping[str, Json]:
        if not self.files:
            raise UserError(
                "adaptation 'adapter' names no file; name LoRA files in the setting itself, or "
                "give files in a table of their own"
            )
        for file in self.files:
            try:
                lora_files.check((file,), "")
            except UserError:
                if not self.alpha:
                    raise
                lora_files.check((file,), self.alpha)
        return {"adapters": [source_recipe(file) for file in self.files]}

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        from spqr_checks.models import adapters

        for file in self.files:
            adapters.load_user_adapter(pipe, file, self.scale, alpha=self.alpha)
        adapters.merge(pipe)
        return pipe


ADAPTATION = Adapter
