"""What a distance between two sets of image features is, and which sets it takes."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Features: TypeAlias = NDArray[np.float64]
"""One row per image, shape (n, d)."""
Floats: TypeAlias = NDArray[np.float64]


class Distance(Protocol):
    """A distance of images under test from reference images; everything is float64."""

    @property
    def name(self) -> str: ...

    def __call__(self, x: Any, y: Any) -> float:
        """Distance of two sets of features.

        Args:
            x, y: array-likes of shapes (n, d) and (m, d), n and m ≥ 2.

        Raises:
            ValueError: for fewer than two images, NaN, infinities or unequal widths.
        """

    def resampled(self, x: Features, y: Features, counts: Floats) -> Floats:
        """The distance of resamples of ``x`` from the same ``y``, shape (resamples,).

        Args:
            counts: how often each image of ``x`` was drawn, shape (resamples, n); each row sums
                to n and has at least two images.
        """


def checked_pair(x: Any, y: Any, least: int = 2) -> tuple[Features, Features]:
    """Both sets as float64; ``least`` images in ``x`` and two in ``y``. Raises ValueError."""
    first, second = _checked(x, "x", least), _checked(y, "y", 2)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"x has {first.shape[1]} features per image, y has {second.shape[1]}")
    return first, second


def _checked(x: Any, name: str, least: int) -> Features:
    features = np.asarray(x, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"{name} has shape {features.shape}; one row of features per image needed")
    if len(features) < least:
        raise ValueError(f"{name} has {len(features)} images; at least {least} are needed")
    if not np.isfinite(features).all():
        raise ValueError(f"{name} contains NaN or infinite features")
    return features
