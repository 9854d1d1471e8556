"""Inpainting: the middle of benign pictures is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from spqr_checks.adaptations.kind import Given
from spqr_checks.adaptations.pictures import FromPictures

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image


class Inpainting(FromPictures):
    """The family's inpainting pipeline with the same networks.

    Attributes:
        part: of each side of the picture that is drawn anew, in the middle.
    """

    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    part: Annotated[float, Field(gt=0, le=1)] = 0.75

    @staticmethod
    def known() -> Mapping[str, type]:
        from diffusers.pipelines.auto_pipeline import AUTO_INPAINT_PIPELINES_MAPPING

        found: Mapping[str, type] = AUTO_INPAINT_PIPELINES_MAPPING
        return found

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        from diffusers import AutoPipelineForInpainting

        return self.converted(pipe, given, AutoPipelineForInpainting.from_pipe, self._mask)

    def _mask(self, picture: Image) -> dict[str, Any]:
        from PIL import Image

        width, height = (round(side * self.part) for side in picture.size)
        mask = Image.new("L", picture.size, 0)
        corner = ((picture.width - width) // 2, (picture.height - height) // 2)
        mask.paste(255, (*corner, corner[0] + width, corner[1] + height))
        return {"mask_image": mask}


ADAPTATION = Inpainting
