"""Image features for distances between sets of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spqr_checks.metrics.clip import load_clip


def image_features(
    images: Sequence[Image.Image], source: str, device: str = "cpu"
) -> NDArray[np.float64]:
    """Unit-norm CLIP image embeddings, shape (n, d).

    Raises:
        UserError: if the source is no usable CLIP model.
        JudgeError: for an embedding with NaN or infinity.
    """
    embedded = load_clip(source, device).embed_images(images)
    return np.asarray(embedded.numpy(), dtype=np.float64)
