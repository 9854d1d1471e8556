"""Distances between two sets of image features: KID and CMMD, both a squared MMD.

The maximum mean discrepancy (Gretton et al. 2012) of two samples under a kernel k is::

    MMD²(x, y) = E k(x, x') + E k(y, y') − 2 E k(x, y)

Both distances use the unbiased estimate (a U-statistic, their equation 3: pairs of an image with
itself are left out), so that the distance of two samples of one distribution is zero on average
at any number of images, and may come out slightly negative. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Features: TypeAlias = NDArray[np.float64]
"""One row per image, shape (n, d)."""
Kernel: TypeAlias = Callable[[Features, Features], Features]
"""Kernel values of all pairs of rows, shape (n, m)."""

_ROWS = 1024
"""Rows of a kernel matrix held at a time, so that memory stays linear in the images."""
_CMMD_SIGMA = 10.0
_CMMD_SCALE = 1000.0


def _polynomial(x: Features, y: Features) -> Features:
    """k(a, b) = (a·b / d + 1)³ with d features."""
    return np.asarray((x @ y.T / x.shape[1] + 1.0) ** 3)


def _gaussian(x: Features, y: Features) -> Features:
    """k(a, b) = exp(−‖a − b‖² / 2σ²) with σ = 10."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * x @ y.T
    return np.asarray(np.exp(-np.maximum(squares, 0.0) / (2 * _CMMD_SIGMA**2)))


def _checked(x: Any, name: str, least: int) -> Features:
    features = np.asarray(x, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"{name} has shape {features.shape}; one row of features per image needed")
    if len(features) < least:
        raise ValueError(f"{name} has {len(features)} images; at least {least} are needed")
    if not np.isfinite(features).all():
        raise ValueError(f"{name} contains NaN or infinite features")
    return features


def _checked_pair(x: Any, y: Any, least: int = 2) -> tuple[Features, Features]:
    first, second = _checked(x, "x", least), _checked(y, "y", 2)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"x has {first.shape[1]} features per image, y has {second.shape[1]}")
    return first, second


@dataclass(frozen=True, slots=True)
class Distance:
    """``scale`` × the unbiased squared MMD under ``kernel``."""

    name: str
    kernel: Kernel
    scale: float

    def __call__(self, x: Any, y: Any) -> float:
        """Distance of two sets of features.

        Args:
            x, y: array-likes of shapes (n, d) and (m, d), n and m ≥ 2.

        Raises:
            ValueError: for fewer than two images, NaN, infinities or unequal widths.
        """
        x, y = _checked_pair(x, y)
        between = sum(float(self.kernel(rows, y).sum()) for rows in _blocks(x))
        return self.scale * (self._within(x) + self._within(y) - 2 * between / (len(x) * len(y)))

    def _within(self, x: Features) -> float:
        """Mean kernel value over the ordered pairs of different images."""
        total = sum(float(self.kernel(rows, x).sum()) for rows in _blocks(x))
        itself = sum(float(np.trace(self.kernel(rows, rows))) for rows in _blocks(x))
        return (total - itself) / (len(x) * (len(x) - 1))


def _blocks(x: Features) -> list[Features]:
    return [x[start : start + _ROWS] for start in range(0, len(x), _ROWS)]


kid = Distance("kid", _polynomial, 1.0)
"""Kernel Inception Distance (Bińkowski et al. 2018), polynomial kernel of degree 3.

As in torchmetrics' ``KernelInceptionDistance`` over one subset that holds all images, but on
whatever features it is given and for sets of unequal size. Not multiplied by anything.
"""

cmmd = Distance("cmmd", _gaussian, _CMMD_SCALE)
"""CMMD (Jayasumana et al. 2024), Gaussian kernel with σ = 10 on CLIP image embeddings, × 1000.

The embeddings are CLIP's projected image embeddings scaled to unit norm and nothing else, which
is also what the authors' code feeds to the kernel. The estimate is the paper's unbiased one. The
authors' code, for speed, keeps the pairs of an image with itself: on the same features it reads
higher by 1000 × ((1 − k̄_x) / n + (1 − k̄_y) / m), k̄ the mean kernel value of different images.
"""

DISTANCES: dict[str, Distance] = {distance.name: distance for distance in (kid, cmmd)}


def split_interval(
    x: Any,
    y: Any,
    distance: Distance,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``distance(x, y)`` over the images of x, y kept fixed.

    Resampling with replacement draws some images twice, and an image is nearer to itself than to
    any other: a plain bootstrap of an unbiased MMD is biased upwards. Pairs of an image with
    itself are therefore left out of every resample, as they are out of the estimate.

    Args:
        x: features of the images under test, shape (n, d), n ≥ 4.
        y: features of the reference images, shape (m, d), m ≥ 2.
        distance: ``kid`` or ``cmmd``.
        seed: of the resampling; equal seeds give equal intervals.
        level: coverage aimed at, in (0, 1).
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: as ``Distance``; for fewer than four images in x or a level outside (0, 1).
    """
    return SplitBootstrap(x, y, distance, seed, resamples).interval(level)


class SplitBootstrap:
    """The bootstrap of `split_interval`, resampled once for intervals of any level.

    Attributes:
        values: the distance of every resample, in the order of resampling.
    """

    def __init__(
        self, x: Any, y: Any, distance: Distance, seed: int, resamples: int = 1000
    ) -> None:
        x, y = _checked_pair(x, y, least=4)
        n = len(x)
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        # a resample that holds one image only has no pairs; it can happen for a handful of images
        counts = counts[(counts > 0).sum(1) > 1].astype(np.float64)
        to_reference = np.concatenate([distance.kernel(rows, y).mean(1) for rows in _blocks(x)])
        pairs = np.zeros(len(counts))
        for start in range(0, n, _ROWS):
            rows = distance.kernel(x[start : start + _ROWS], x)
            here = np.arange(len(rows))
            rows[here, start + here] = 0.0
            pairs += np.einsum("ri,ri->r", counts[:, start : start + _ROWS], counts @ rows.T)
        within = pairs / (n**2 - (counts**2).sum(1))
        values = within + distance._within(y) - 2 * counts @ to_reference / n
        self.values = [float(value) for value in distance.scale * values]

    def interval(self, level: float) -> tuple[float, float]:
        """Percentile interval; ValueError for a level outside (0, 1)."""
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; it lies between 0 and 1")
        low, high = np.quantile(self.values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
