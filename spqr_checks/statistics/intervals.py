"""Intervals for a rate."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Literal, TypeAlias

Interval: TypeAlias = tuple[float, float]
Sides: TypeAlias = Literal[1, 2]
ThresholdVerdict: TypeAlias = Literal["pass", "fail", "inconclusive"]


@lru_cache
def quantile(level: float, sides: Sides) -> float:
    """Standard normal quantile z of a one- or two-sided level.

    Raises:
        ValueError: a level outside (0, 1) or, with one side, outside (0.5, 1); other sides.
    """
    if sides not in (1, 2):
        raise ValueError(f"an interval has 1 or 2 sides, not {sides}")
    lowest = 0.5 if sides == 1 else 0.0
    if not lowest < level < 1:  # also refuses NaN
        raise ValueError(f"confidence level {level} is not between {lowest:g} and 1")
    return NormalDist().inv_cdf(1 - (1 - level) / sides)


def deviations(value: float, interval: Interval, level: float) -> tuple[float, float]:
    """Standard deviations below and above a value whose two-sided bounds are normal quantiles."""
    z = quantile(level, 2)
    return max(0.0, value - interval[0]) / z, max(0.0, interval[1] - value) / z


def wilson(k: int, n: int, level: float = 0.95, sides: Sides = 2) -> Interval:
    """Wilson's score interval of a rate (Wilson 1927; Newcombe 1998, method 3).

    Args:
        k: events among ``n`` independent trials.
        level: confidence of the interval or, with one side, of each bound taken alone.
        sides: 2 for an interval, 1 for two one-sided bounds of which the caller uses one.

    Returns:
        Lower and upper bound, rates in [0, 1].

    Raises:
        ValueError: no trials, counts outside 0 to n, or a bad level.
    """
    _check_counts(k, n)
    z = quantile(level, sides)
    rate = k / n
    centre = rate + z * z / (2 * n)
    margin = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # exact at the edges, where subtraction would leave some 1e-17
    low = 0.0 if k == 0 else max(0.0, (centre - margin) / scale)
    high = 1.0 if k == n else min(1.0, (centre + margin) / scale)
    return low, high


def clopper_pearson(k: int, n: int, level: float = 0.95, sides: Sides = 2) -> Interval:
    """The "exact" interval of Clopper and Pearson (1934): never below its level, often above.

    Arguments, result and errors as for `wilson`.
    """
    from scipy.special import betaincinv

    _check_counts(k, n)
    quantile(level, sides)  # refuses what it refuses
    tail = (1 - level) / sides
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def binomial_tails(k: int, n: int, rate: float) -> tuple[float, float]:
    """P(X ≤ k) and P(X ≥ k) of X binomial with ``n`` trials, each summed by itself, without scipy.

    Args:
        rate: in (0, 1).

    Raises:
        ValueError: no trials, or counts outside 0 to n.
    """
    _check_counts(k, n)
    ways, yes, no = math.lgamma(n + 1), math.log(rate), math.log1p(-rate)
    terms = [
        math.exp(ways - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * yes + (n - i) * no)
        for i in range(n + 1)
    ]
    return min(1.0, math.fsum(terms[: k + 1])), min(1.0, math.fsum(terms[k:]))


def _check_counts(k: int, n: int) -> None:
    if n < 1:
        raise ValueError(f"a rate needs at least one trial, not {n}")
    if not 0 <= k <= n:
        raise ValueError(f"{k} events among {n} trials")
