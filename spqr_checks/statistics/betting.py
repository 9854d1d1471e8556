"""Tests and intervals for a mean that may be looked at after every batch: betting.

Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 2024,
arXiv 2010.09686). Somebody who bets on observations in [0, 1] at odds that are fair if their mean
is m multiplies the capital by 1 + λ(x − m) each time. If the mean is m or less, the capital is a
non-negative supermartingale and exceeds 1/α at any time with probability at most α (Ville's
inequality), however often it is looked at and whenever one stops.

Here the capital is spread evenly over a grid of constant bets λ (the paper's diversified Kelly
betting, section B.4). It depends on the observations only and not on their order, is as good as the
best single bet of the grid up to a factor, and needs no tuning.
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
_SHARES: Floats = np.arange(1, _BETS + 1) / _BETS
"""Bets as shares of the largest that cannot lose more than everything."""


def e_above(values: Values, mean: float) -> float:
    """Evidence that the true mean is above ``mean``: at most 1 on average if it is not.

    Args:
        values: observations in [0, 1], in any order.
        mean: in (0, 1).

    Returns:
        The capital, from 0 to infinity; 1 without observations. 1/e is a p-value at any stopping
        time.

    Raises:
        ValueError: values outside [0, 1] or not finite, or a mean outside (0, 1).
    """
    return math.exp(min(_log_capital(_checked(values), _inside(mean)), 700.0))


def e_below(values: Values, mean: float) -> float:
    """Evidence that the true mean is below ``mean``; otherwise as `e_above`."""
    return math.exp(min(_log_capital(1 - _checked(values), 1 - _inside(mean)), 700.0))


def confidence_sequence(values: Values, level: float = 0.95, sides: Sides = 2) -> Interval:
    """Interval of the mean that holds at all times together with probability ``level``.

    Args:
        values: observations in [0, 1], in any order.
        level: of the interval or, with one side, of each bound taken alone.

    Returns:
        The means that the evidence so far does not rule out; (0, 1) without observations.

    Raises:
        ValueError: as `e_above`, or a bad level.
    """
    data = _checked(values)
    quantile(level, sides)  # refuses what it refuses
    wanted = math.log(sides / (1 - level))
    return _lower(data, wanted), 1 - _lower(1 - data, wanted)


def _lower(data: Floats, wanted: float) -> float:
    """Smallest mean that is not ruled out from below; the capital falls as the mean rises."""
    low, high = 0.0, float(data.mean()) if len(data) else 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle <= 0 or middle >= 1:
            break
        if _log_capital(data, middle) >= wanted:
            low = middle
        else:
            high = middle
    return low


def _log_capital(data: Floats, mean: float) -> float:
    """Logarithm of the mean over the grid of Π (1 + λ (x − mean)), λ up to 1 / mean."""
    if not len(data):
        return 0.0
    values, counts = np.unique(data, return_counts=True)
    with np.errstate(divide="ignore"):  # everything lost: log 0
        logs = counts @ np.log(1 + np.outer(values / mean - 1, _SHARES))
    highest = float(logs.max())
    if highest == -math.inf:
        return highest
    return highest + math.log(float(np.exp(logs - highest).mean()))


def _checked(values: Values) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not np.isfinite(data).all() or ((data < 0) | (data > 1)).any():
        raise ValueError("betting needs a list of numbers between 0 and 1")
    return data


def _inside(mean: float) -> float:
    if not 0 < mean < 1:
        raise ValueError(f"a mean to bet against lies between 0 and 1, not at {mean}")
    return mean
