"""The seeded bootstrap of a ratio of paired means."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from spqr_checks.statistics.betting import Floats, Values
from spqr_checks.statistics.intervals import Interval, quantile

_CHUNK = 1 << 20
"""Resampled values held in memory at a time."""


class RatioOfMeans:
    """Bootstrap of mean(a) / mean(b) over pairs (a_i, b_i), resampled once for all levels.

    Pairs are resampled together, so what is common to a pair does not widen the interval. The
    interval is bias-corrected and accelerated (Efron 1987, "Better bootstrap confidence intervals",
    eq. 2.3 and 6.6 with the jackknife's acceleration).

    Args:
        a, b: n independent pairs.
        seed: of the resampling; equal seeds give equal intervals.
        resamples: bootstrap samples.

    Raises:
        ValueError: fewer than two pairs, lengths that differ, values that are not finite, or a
            denominator whose mean is not positive in every resample: then the ratio is not
            determined by the data.
    """

    def __init__(self, a: Values, b: Values, *, seed: int, resamples: int = 2000) -> None:
        first, second = _checked("a", a), _checked("b", b)
        if len(first) != len(second):
            raise ValueError(
                f"a ratio of paired means needs pairs, not {len(first)} and {len(second)}"
            )
        if resamples < 100:
            raise ValueError(f"{resamples} bootstrap samples are too few for an interval")
        data = np.stack((first, second), 1)
        self.resamples = resamples
        self._draws = np.sort(_ratio(_resampled_means(data, seed, resamples)))
        self._bias = _bca(data, self._draws)

    def interval(self, level: float) -> Interval:
        """Two-sided interval; ValueError for a bad level, or values too large to be averaged."""
        quantile(level, 2)  # refuses a bad level
        tail = (1 - level) / 2
        z = NormalDist().inv_cdf(tail)
        quantiles = (
            (tail, 1 - tail)
            if self._bias == (0.0, 0.0)
            else (_corrected(z, *self._bias), _corrected(-z, *self._bias))
        )
        low, high = (float(bound) for bound in np.quantile(self._draws, quantiles))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("bootstrap: the values are too large to be averaged")
        return low, high


def _ratio(means: Floats) -> Floats:
    """Of column means, shape (…, 2)."""
    if np.any(means[..., 1] <= 0):
        raise ValueError("ratio of means: the mean of b is not clearly positive")
    return np.asarray(means[..., 0] / means[..., 1])


def _checked(name: str, values: Values) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"a bootstrap needs at least two {name}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"a bootstrap needs finite {name}")
    return array


def _resampled_means(data: Floats, seed: int, resamples: int) -> Floats:
    n = len(data)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // n)
    return np.concatenate(
        [
            data[generator.integers(n, size=(min(rows, resamples - start), n))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )


def _bca(data: Floats, draws: Floats) -> tuple[float, float]:
    """Bias z0 and acceleration a of the sorted draws."""
    estimate = _ratio(data.mean(axis=0))
    if draws[0] == draws[-1]:  # constant data: nothing to correct
        return 0.0, 0.0
    # ties count half, as the draws of few values are lumpy; what differs by rounding alone is tied
    tie = 1e-12 * np.abs(draws).max()
    below = (
        np.searchsorted(draws, estimate - tie) + np.searchsorted(draws, estimate + tie, "right")
    ) / 2
    share = float(np.clip(below / len(draws), 0.5 / len(draws), 1 - 0.5 / len(draws)))
    z0 = NormalDist().inv_cdf(share)
    jackknife = _ratio((data.sum(axis=0) - data) / (len(data) - 1))
    deviations = jackknife.mean() - jackknife
    largest = float(np.abs(deviations).max())
    if largest > 0:
        deviations = deviations / largest  # its powers neither vanish nor overflow
        return z0, float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
    return z0, 0.0


def _corrected(z: float, z0: float, acceleration: float) -> float:
    """The share of draws to cut off at, instead of Φ(z)."""
    denominator = 1 - acceleration * (z0 + z)
    if denominator <= 0:  # beyond the pole the formula turns back; the limit is the extreme
        return float(z0 + z > 0)
    return NormalDist().cdf(z0 + (z0 + z) / denominator)
