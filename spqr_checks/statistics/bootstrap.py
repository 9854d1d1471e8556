"""Seeded bootstrap intervals of means and of ratios of paired means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from spqr_checks.statistics.intervals import Interval, quantile

Floats: TypeAlias = npt.NDArray[np.float64]
Values: TypeAlias = Sequence[float] | Floats
Method: TypeAlias = Literal["bca", "percentile"]

_CHUNK = 1 << 20
"""Resampled values held in memory at a time."""


def mean_interval(
    values: Values,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
    method: Method = "bca",
) -> Interval:
    """Two-sided bootstrap interval of the mean.

    Args:
        values: n independent observations.
        seed: of the resampling; equal seeds give equal intervals.
        resamples: bootstrap samples.
        method: "percentile", or "bca": bias-corrected and accelerated (Efron 1987, "Better
            bootstrap confidence intervals", eq. 2.3 and 6.6 with the jackknife's acceleration).

    Raises:
        ValueError: fewer than two values, values that are not finite, or a bad level.
    """
    data = _checked("values", values)[:, None]
    bootstrap = _Bootstrap(data, lambda means: means[..., 0], seed, resamples, method)
    return bootstrap.interval(level)


def ratio_of_means(
    a: Values,
    b: Values,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
    method: Method = "bca",
) -> Interval:
    """Two-sided bootstrap interval of mean(a) / mean(b) over pairs (a_i, b_i).

    Pairs are resampled together, so what is common to a pair does not widen the interval.
    Arguments as for `mean_interval`.

    Raises:
        ValueError: as `mean_interval`; lengths that differ; or a denominator whose mean is not
            positive in every resample: then the ratio is not determined by the data.
    """
    return RatioOfMeans(a, b, seed=seed, resamples=resamples, method=method).interval(level)


class RatioOfMeans:
    """The bootstrap of `ratio_of_means`, resampled once for intervals of any level."""

    def __init__(
        self,
        a: Values,
        b: Values,
        *,
        seed: int,
        resamples: int = 2000,
        method: Method = "bca",
    ) -> None:
        first, second = _checked("a", a), _checked("b", b)
        if len(first) != len(second):
            raise ValueError(
                f"a ratio of paired means needs pairs, not {len(first)} and {len(second)}"
            )
        data = np.stack((first, second), 1)
        self.resamples = resamples
        self._bootstrap = _Bootstrap(data, _ratio, seed, resamples, method)

    def interval(self, level: float) -> Interval:
        """Two-sided interval; ValueError for a bad level."""
        return self._bootstrap.interval(level)


def _ratio(means: Floats) -> Floats:
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


class _Bootstrap:
    """Draws of ``statistic(column means)``; ``data`` is (n, columns), means (…, columns)."""

    def __init__(
        self,
        data: Floats,
        statistic: Callable[[Floats], Floats],
        seed: int,
        resamples: int,
        method: Method,
    ) -> None:
        if resamples < 100:
            raise ValueError(f"{resamples} bootstrap samples are too few for an interval")
        if method not in ("bca", "percentile"):
            raise ValueError(f"unknown bootstrap method {method!r}")
        self._method = method
        self._draws = np.sort(statistic(_resampled_means(data, seed, resamples)))
        self._bias = (0.0, 0.0) if method == "percentile" else _bca(data, statistic, self._draws)

    def interval(self, level: float) -> Interval:
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


def _bca(data: Floats, statistic: Callable[[Floats], Floats], draws: Floats) -> tuple[float, float]:
    """Bias z0 and acceleration a of the sorted draws."""
    n = len(data)
    estimate = statistic(data.mean(axis=0))
    if draws[0] == draws[-1]:  # constant data: nothing to correct
        return 0.0, 0.0
    # ties count half, as the draws of few values are lumpy; what differs by rounding alone is tied
    tie = 1e-12 * np.abs(draws).max()
    below = (
        np.searchsorted(draws, estimate - tie) + np.searchsorted(draws, estimate + tie, "right")
    ) / 2
    share = float(np.clip(below / len(draws), 0.5 / len(draws), 1 - 0.5 / len(draws)))
    z0 = NormalDist().inv_cdf(share)
    jackknife = statistic((data.sum(axis=0) - data) / (n - 1))
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
