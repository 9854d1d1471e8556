"""Image features as numpy rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from spqr_checks.metrics.features import image_features


def test_rows_are_unit_norm_in_double_precision(
    clip_dir: Path, pictures: list[Image.Image]
) -> None:
    rows = image_features(pictures, str(clip_dir))
    assert rows.shape == (5, 8)
    assert rows.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_they_repeat_to_the_bit(clip_dir: Path, pictures: list[Image.Image]) -> None:
    once = image_features(pictures, str(clip_dir))
    assert np.array_equal(once, image_features(pictures, str(clip_dir)))


def test_different_images_have_different_rows(clip_dir: Path, pictures: list[Image.Image]) -> None:
    rows = image_features(pictures, str(clip_dir))
    assert len(np.unique(rows.round(4), axis=0)) == 5
