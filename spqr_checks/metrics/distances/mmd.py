"""The squared maximum mean discrepancy, which KID and CMMD are under different kernels.

The maximum mean discrepancy (Gretton et al. 2012) of two samples under a kernel k is::

    MMD²(x, y) = E k(x, x') + E k(y, y') − 2 E k(x, y)

The estimate is the unbiased one (a U-statistic, their equation 3: pairs of an image with itself
are left out), so that the distance of two samples of one distribution is zero on average at any
number of images, and may come out slightly negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from spqr_checks.metrics.distances import Features, Floats, checked_pair

Kernel: TypeAlias = Callable[[Features, Features], Floats]
"""Kernel values of all pairs of rows, shape (n, m)."""

_ROWS = 1024
"""Rows of a kernel matrix held at a time, so that memory stays linear in the images."""


@dataclass(frozen=True, slots=True)
class SquaredMMD:
    """``scale`` × the unbiased squared MMD under ``kernel``; see `Distance`."""

    name: str
    kernel: Kernel
    scale: float

    def __call__(self, x: Any, y: Any) -> float:
        x, y = checked_pair(x, y)
        between = sum(float(self.kernel(rows, y).sum()) for rows in _blocks(x))
        return self.scale * (self._within(x) + self._within(y) - 2 * between / (len(x) * len(y)))

    def resampled(self, x: Features, y: Features, counts: Floats) -> Floats:
        """Of resamples of ``x``.

        Resampling with replacement draws some images twice, and an image is nearer to itself than
        to any other: a plain bootstrap of an unbiased MMD is biased upwards. Pairs of an image
        with itself are therefore left out of every resample, as they are out of the estimate.
        """
        n = len(x)
        to_reference = np.concatenate([self.kernel(rows, y).mean(1) for rows in _blocks(x)])
        pairs = np.zeros(len(counts))
        for start in range(0, n, _ROWS):
            rows = self.kernel(x[start : start + _ROWS], x)
            here = np.arange(len(rows))
            rows[here, start + here] = 0.0
            pairs += np.einsum("ri,ri->r", counts[:, start : start + _ROWS], counts @ rows.T)
        within = pairs / (n**2 - (counts**2).sum(1))
        values = within + self._within(y) - 2 * counts @ to_reference / n
        return np.asarray(self.scale * values)

    def _within(self, x: Features) -> float:
        """Mean kernel value over the ordered pairs of different images."""
        total = sum(float(self.kernel(rows, x).sum()) for rows in _blocks(x))
        itself = sum(float(np.trace(self.kernel(rows, rows))) for rows in _blocks(x))
        return (total - itself) / (len(x) * (len(x) - 1))


def _blocks(x: Features) -> list[Features]:
    return [x[start : start + _ROWS] for start in range(0, len(x), _ROWS)]
