"""CLIP's image embeddings as rows of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spqr_checks.metrics.clip import Clip


@dataclass(frozen=True)
class Embeddings:
    """Unit-norm rows."""

    clip: Clip

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float64]:
        return np.asarray(self.clip.embed_images(images).numpy(), dtype=np.float64)
