"""Image to image (SDEdit, Meng et al., arXiv 2108.01073): from benign pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from spqr_checks.adaptations.kind import Given
from spqr_checks.adaptations.pictures import FromPictures

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class ImageToImage(FromPictures):
    """The family's image-to-image pipeline with the same networks."""

    @staticmethod
    def known() -> Mapping[str, type]:
        from diffusers.pipelines.auto_pipeline import AUTO_IMAGE2IMAGE_PIPELINES_MAPPING

        found: Mapping[str, type] = AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
        return found

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        from diffusers import AutoPipelineForImage2Image

        return self.converted(pipe, given, AutoPipelineForImage2Image.from_pipe, lambda _: {})


ADAPTATION = ImageToImage
