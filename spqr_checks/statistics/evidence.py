"""What observations say about a threshold: an interval, and a p-value for each side of it.

Two ways to the same three numbers. With a number of images fixed beforehand: Wilson's score test,
Newcombe's paired interval and the BCa bootstrap. With looks after every batch: betting, whose
p-values hold at any stopping time (see `betting`).

``p_met`` is the p-value against "the requirement is not met", so a small one lets a cell pass;
``p_missed`` is that against "it is met", so a small one lets it fail.

Where many cells are tested at once, p-values are adjusted for how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from spqr_checks.statistics import betting
from spqr_checks.statistics.bootstrap import RatioOfMeans
from spqr_checks.statistics.intervals import Interval, ThresholdVerdict, wilson
from spqr_checks.statistics.paired import newcombe

_HALVINGS = 40
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Evidence:
    """Interval of a value at the run's level, and p-values for and against the requirement."""

    interval: Interval
    p_met: float
    p_missed: float

    def flipped(self) -> Evidence:
        """The same for the opposite requirement."""
        return replace(self, p_met=self.p_missed, p_missed=self.p_met)

    def verdict(self, alpha: float, alpha_fail: float | None = None) -> ThresholdVerdict:
        """``pass`` or ``fail`` if shown at that error, else ``inconclusive``.

        Args:
            alpha: largest probability of passing what does not meet the requirement.
            alpha_fail: of failing what does; ``alpha`` if not given.
        """
        if self.p_met <= alpha:
            return "pass"
        failed = self.p_missed <= (alpha if alpha_fail is None else alpha_fail)
        return "fail" if failed else "inconclusive"


# ---- a rate that is to stay at or below a threshold -----------------------------------------


def rate(k: int, n: int, threshold: float, level: float) -> Evidence:
    """Wilson's interval and the score test that it inverts. Raises ValueError as `wilson`."""
    interval = wilson(k, n, level)
    deviation = math.sqrt(max(0.0, threshold * (1 - threshold) / n))
    if deviation:
        p_met = NormalDist().cdf((k / n - threshold) / deviation)
        return Evidence(interval, p_met, 1 - p_met)
    return Evidence(interval, *_at_the_edge(k / n, threshold))


@lru_cache(maxsize=1 << 14)  # many cells of a run have equal counts
def betting_rate(k: int, n: int, threshold: float, level: float) -> Evidence:
    """The same at any time. Raises ValueError as `wilson`."""
    wilson(k, n, level)  # refuses what it refuses
    values = np.repeat([1.0, 0.0], [k, n - k])
    return betting_mean(values, threshold, level)


@lru_cache(maxsize=1 << 14)
def betting_drawn(flagged: tuple[bool, ...], size: int, threshold: float, level: float) -> Evidence:
    """The same of a set of ``size``, drawn from at random and without replacement, in this order.

    Raises:
        ValueError: as `betting.e_above`.
    """
    return betting_mean([float(flag) for flag in flagged], threshold, level, size)


def betting_mean(
    values: betting.Values, threshold: float, level: float, size: int | None = None
) -> Evidence:
    """A mean of observations in [0, 1]. Arguments and errors as of `betting.e_above`."""
    interval = betting.confidence_sequence(values, level, size=size)
    if not 0 < threshold < 1:
        return Evidence(interval, *_at_the_edge(float(np.mean(values)), threshold))
    return Evidence(
        interval,
        _p(betting.e_below(values, threshold, size)),
        _p(betting.e_above(values, threshold, size)),
    )


def _at_the_edge(mean: float, threshold: float) -> tuple[float, float]:
    """A rate cannot be above 1, and that it is 0 can be disproved but never shown."""
    if threshold >= 1:
        return 0.0, 1.0
    return 1.0, 0.0 if mean > max(threshold, 0.0) else 1.0


# ---- a ratio of paired means that is to reach a threshold -----------------------------------


def ratio(
    a: betting.Values, b: betting.Values, threshold: float, level: float, seed: int
) -> Evidence:
    """BCa bootstrap of mean(a) / mean(b) over pairs. Raises ValueError as `RatioOfMeans`."""
    bootstrap = RatioOfMeans(a, b, seed=seed)
    finest = 1 / (bootstrap.resamples + 1)
    return inverted(bootstrap.interval, threshold, level, finest).flipped()


def betting_ratio(a: betting.Values, b: betting.Values, threshold: float, level: float) -> Evidence:
    """The same at any time, for values in [0, 1].

    mean(a) / mean(b) is above r exactly if the mean of a − r b is above zero, which lies in
    [−r, 1]; so r is bet against on (a − r b + r) / (1 + r), whose mean is then above r / (1 + r).

    Raises:
        ValueError: values outside [0, 1], other lengths, or a threshold that is not positive.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape or not threshold > 0:
        raise ValueError("a ratio of paired means needs pairs and a positive threshold")

    def against(r: float) -> tuple[betting.Floats, float]:
        return (first - r * second + r) / (1 + r), r / (1 + r)

    wanted = 2 / (1 - level)
    highest = 2.0
    low = _last(lambda r: betting.e_above(*against(r)) >= wanted, 0.0, highest)
    high = highest - _last(lambda s: betting.e_below(*against(highest - s)) >= wanted, 0.0, highest)
    return Evidence(
        (low, high),
        _p(betting.e_above(*against(threshold))),
        _p(betting.e_below(*against(threshold))),
    )


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest number at which a condition holds that holds up to there only."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


# ---- a paired difference of rates that is to stay at or below a threshold -------------------


def difference(
    both: int, gained: int, lost: int, neither: int, threshold: float, level: float
) -> Evidence:
    """Newcombe's interval of (gained − lost) / n. Raises ValueError as `newcombe`."""
    return inverted(lambda at: newcombe(both, gained, lost, neither, level=at), threshold, level)


def betting_difference(
    both: int, gained: int, lost: int, neither: int, threshold: float, level: float
) -> Evidence:
    """The same at any time: bets on after − before, which is −1, 0 or 1.

    Raises:
        ValueError: negative counts, no pairs, or a bad level.
    """
    newcombe(both, gained, lost, neither, level=level)  # refuses what it refuses
    values = np.repeat([1.0, 0.5, 0.0], [gained, both + neither, lost])
    found = betting_mean(values, (1 + threshold) / 2, level)
    low, high = found.interval
    return replace(found, interval=(2 * low - 1, 2 * high - 1))


# ---- any interval ------------------------------------------------------------------------------


def inverted(
    interval_at: Callable[[float], Interval],
    threshold: float,
    level: float,
    finest: float = 0.0,
) -> Evidence:
    """Evidence from a family of two-sided intervals, for a value that is to stay at or below.

    A one-sided p-value is the smallest error α at which the interval of level 1 − 2α lies on that
    side of the threshold: the usual duality, by bisection.

    Args:
        finest: smallest p-value that can be told; 1 / (resamples + 1) for a bootstrap.
    """

    def met(at: float) -> bool:
        return interval_at(at)[1] <= threshold

    def missed(at: float) -> bool:
        return interval_at(at)[0] > threshold

    p_met, p_missed = (max(finest, _smallest_error(shown)) for shown in (met, missed))
    return Evidence(interval_at(level), p_met, p_missed)


def _smallest_error(shown: Callable[[float], bool]) -> float:
    if not shown(_SMALLEST):  # not even the narrowest interval
        return 1.0
    return (1 - _last(shown, 0.0, 1 - _SMALLEST)) / 2


def _p(e_value: float) -> float:
    return min(1.0, 1 / e_value) if e_value > 0 else 1.0


# ---- many tests at once ----------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979, Scandinavian Journal of Statistics 6:65).

    Rejecting where the adjusted p-value is at most α rejects any true hypothesis in at most the
    share α of families, however the tests depend on each other.

    Args:
        p_values: of one family, in any order.

    Returns:
        Adjusted p-values in the order given, at most 1, never below the p-value itself.

    Raises:
        ValueError: a p-value that is not a number from 0 to 1.
    """
    _check_p(p_values)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """The step-up adjustment of Benjamini and Hochberg (1995, JRSS B 57:289).

    Rejecting where the adjusted p-value is at most α keeps the expected share of true hypotheses
    among the rejected ones at most α, for tests that are independent or positively dependent.

    Arguments, result and errors as for `holm`.
    """
    _check_p(p_values)
    if not p_values:
        return []
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values, method="bh")]


def _check_p(p_values: Sequence[float]) -> None:
    for p in p_values:
        if not 0 <= p <= 1:  # also refuses NaN
            raise ValueError(f"a p-value lies between 0 and 1, not at {p}")
