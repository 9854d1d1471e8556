"""Tests and intervals for a mean that may be looked at after every batch: betting.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 2024,
arXiv 2010.09686). Somebody who bets on observations in [0, 1] at odds that are fair if their mean
is m multiplies the capital by 1 + λ(x − m) each time. If the mean is m or less, the capital is a
non-negative supermartingale and exceeds 1/α at any time with probability at most α (Ville's
inequality), however often it is looked at and whenever one stops.

Here the capital is spread evenly over a grid of constant bets λ (the paper's diversified Kelly
betting, section B.4). It depends on the observations only and not on their order, is as good as the
best single bet of the grid up to a factor, and needs no tuning.

Values drawn from a finite set without replacement say more (the same authors, "Confidence
sequences for sampling without replacement", NeurIPS 2020, arXiv 2006.04347): if the mean of all N
is m, that of those left before draw t is (N m − sum so far) / (N − t + 1), and that is what is bet
against. Then the order counts, which must be random; and once all are drawn, nothing is left to
chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from spqr_checks.statistics.intervals import Interval, Sides, quantile

Floats: TypeAlias = npt.NDArray[np.float64]
Values: TypeAlias = Sequence[float] | Floats

_BETS = 40
_HALVINGS = 34
_EXACT = 1e-9
"""Sums within this are equal."""
_SHARES: Floats = np.arange(1, _BETS + 1) / _BETS
"""Bets as shares of the largest that cannot lose more than everything."""


def e_above(values: Values, mean: float, size: int | None = None) -> float:
    """Evidence that the true mean is above ``mean``: at most 1 on average if it is not.

    Args:
        values: observations in [0, 1], in any order.
        mean: in (0, 1).
        size: of the set that they are drawn from without replacement, at random and in this order;
            ``mean`` is then that of the set.

    Returns:
        The capital, from 0 to infinity; 1 without observations. 1/e is a p-value at any stopping
        time.

    Raises:
        ValueError: values outside [0, 1] or not finite, more of them than the set has, or a mean
            outside (0, 1).
    """
    return math.exp(min(_log_capital(_checked(values, size), _inside(mean), size), 700.0))


def e_below(values: Values, mean: float, size: int | None = None) -> float:
    """Evidence that the true mean is below ``mean``; otherwise as `e_above`."""
    return math.exp(min(_log_capital(1 - _checked(values, size), 1 - _inside(mean), size), 700.0))


def confidence_sequence(
    values: Values, level: float = 0.95, sides: Sides = 2, size: int | None = None
) -> Interval:
    """Interval of the mean that holds at all times together with probability ``level``.

    Args:
        values, size: as of `e_above`.
        level: of the interval or, with one side, of each bound taken alone.

    Returns:
        The means that the evidence so far does not rule out; (0, 1) without observations.

    Raises:
        ValueError: as `e_above`, or a bad level.
    """
    data = _checked(values, size)
    quantile(level, sides)  # refuses what it refuses
    wanted = math.log(sides / (1 - level))
    return _lower(data, wanted, size), 1 - _lower(1 - data, wanted, size)


def _lower(data: Floats, wanted: float, size: int | None) -> float:
    """Smallest mean that is not ruled out from below; the capital falls as the mean rises."""
    low, high = 0.0, float(data.mean()) if len(data) else 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle <= 0 or middle >= 1:
            break
        if _log_capital(data, middle, size) >= wanted:
            low = middle
        else:
            high = middle
    return low


def _log_capital(data: Floats, mean: float, size: int | None = None) -> float:
    """Logarithm of the mean over the grid of Π (1 + λ (x − mean)), λ up to 1 / mean."""
    if not len(data):
        return 0.0
    if size is None:
        ratios, counts = np.unique(data / mean, return_counts=True)
    else:
        before = np.concatenate([[0.0], np.cumsum(data)])
        left = size * mean - before  # what the mean allows the rest of the set to add up to
        if left[-1] < -_EXACT:
            return math.inf
        means = (left[:-1] / (size - np.arange(len(data)))).clip(0.0, 1.0)
        # of a rest that must be all zeros nothing can be won, and nothing is staked
        ratios = np.divide(data, means, out=np.ones_like(data), where=means > _EXACT)
        counts = np.ones_like(data)
    with np.errstate(divide="ignore"):  # everything lost: log 0
        logs = counts @ np.log(1 + np.outer(ratios - 1, _SHARES))
    highest = float(np.max(logs))
    if highest == -math.inf:
        return highest
    return highest + math.log(float(np.exp(logs - highest).mean()))


def _checked(values: Values, size: int | None) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not np.isfinite(data).all() or ((data < 0) | (data > 1)).any():
        raise ValueError("betting needs a list of numbers between 0 and 1")
    if size is not None and len(data) > size:
        raise ValueError(f"{len(data)} values cannot be drawn from {size} without replacement")
    return data


def _inside(mean: float) -> float:
    if not 0 < mean < 1:
        raise ValueError(f"a mean to bet against lies between 0 and 1, not at {mean}")
    return mean
