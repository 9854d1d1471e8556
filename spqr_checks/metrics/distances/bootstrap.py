"""Bootstrap intervals of a distance over the images under test, the reference kept fixed."""

from __future__ import annotations

from typing import Any

import numpy as np

from spqr_checks.metrics.distances.base import Distance, checked_pair


def split_interval(
    x: Any,
    y: Any,
    distance: Distance,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``distance(x, y)`` over the images of x, y kept fixed.

    What resampling does to the bias of the estimate is undone by each distance itself, see its
    ``resampled``. For ``fid`` the interval is that of its expectation at this number of images.

    Args:
        x: features of the images under test, shape (n, d), n ≥ 4.
        y: features of the reference images, shape (m, d), m ≥ 2.
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
        x, y = checked_pair(x, y, least=4)
        n = len(x)
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
        # a resample that holds one image only has no pairs; it can happen for a handful of images
        counts = counts[(counts > 0).sum(1) > 1].astype(np.float64)
        self.values = [float(value) for value in distance.resampled(x, y, counts)]

    def interval(self, level: float) -> tuple[float, float]:
        """Percentile interval; ValueError for a level outside (0, 1)."""
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; it lies between 0 and 1")
        low, high = np.quantile(self.values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
