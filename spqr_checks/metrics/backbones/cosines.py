"""Cosines of images with their own prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from spqr_checks.metrics.clip import Clip


@dataclass(frozen=True)
class Cosines:
    """``factor`` × the cosine of each image's embedding with that of its prompt.

    Prompts are cut at the end of the model's context where longer.
    """

    clip: Clip
    factor: float = 1.0

    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        seen = self.clip.embed_images(images).double()
        said = self.clip.embed_texts(prompts).double()
        scaled: list[float] = (self.factor * (seen * said).sum(-1).clamp(-1, 1)).tolist()
        return scaled
