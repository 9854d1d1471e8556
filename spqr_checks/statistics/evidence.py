"""What observations say about a threshold: an interval, and a p-value for each side of it.

Two ways to the same three numbers. With a number of images fixed beforehand: exact p-values, and
Wilson's and Newcombe's intervals. With looks after every batch: betting, whose p-values hold at any
stopping time (see `betting`). Ratios have a module of their own.

``p_met`` is the p-value against "the requirement is not met", so a small one lets a cell pass;
``p_missed`` is that against "it is met", so a small one lets it fail.

Where many cells are tested at once, p-values are adjusted for how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import numpy as np

from spqr_checks.statistics import betting
from spqr_checks.statistics.intervals import Interval, ThresholdVerdict, binomial_tails, wilson
from spqr_checks.statistics.paired import newcombe, paired_tails


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


@lru_cache(maxsize=1 << 14)  # many cells of a run have equal counts
def rate(k: int, n: int, threshold: float, level: float) -> Evidence:
    """Wilson's interval, and exact binomial p-values. Raises ValueError as `wilson`.

    The p-values are those that Clopper and Pearson's bounds invert. A score test's, which go with
    Wilson's interval, are too small far in the tail, where many cells are tested together.
    """
    interval = wilson(k, n, level)
    if 0 < threshold < 1:
        return Evidence(interval, *binomial_tails(k, n, threshold))
    return Evidence(interval, *_at_the_edge(k / n, threshold))


@lru_cache(maxsize=1 << 14)
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


# ---- a paired difference of rates that is to stay at or below a threshold -------------------


def difference(
    both: int, gained: int, lost: int, neither: int, threshold: float, level: float
) -> Evidence:
    """Newcombe's interval of (gained − lost) / n, and exact p-values (see `paired_tails`).

    Raises:
        ValueError: as `newcombe`.
    """
    interval = newcombe(both, gained, lost, neither, level=level)
    n = both + gained + lost + neither
    if -1 < threshold < 1:
        return Evidence(interval, *paired_tails(gained, lost, n, threshold))
    return Evidence(interval, *((0.0, 1.0) if threshold >= 1 else (1.0, float(lost == n))))


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


def _p(e_value: float) -> float:
    return min(1.0, 1 / e_value) if e_value > 0 else 1.0


# ---- many tests at once ----------------------------------------------------------------------


def holm(p_values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Holm's step-down adjustment (Holm 1979, Scandinavian Journal of Statistics 6:65).

    Rejecting where the adjusted p-value is at most α rejects any true hypothesis in at most the
    share α of families, however the tests depend on each other.

    Args:
        p_values: of one family, in any order.
        weights: positive; in what proportions they share the error; equal if not given.

    Returns:
        Adjusted p-values in the order given, at most 1, never below the p-value itself.

    Raises:
        ValueError: a p-value that is not a number from 0 to 1, or a weight that is not positive.
    """
    given = _weighted(p_values, weights)
    adjusted = [0.0] * len(given)
    highest = 0.0
    order = sorted(range(len(given)), key=lambda i: p_values[i] / given[i])
    left = list(accumulate(given[i] for i in reversed(order)))
    for index in order:
        highest = max(highest, min(1.0, left.pop() * (p_values[index] / given[index])))
        adjusted[index] = highest
    return adjusted


def benjamini_hochberg(
    p_values: Sequence[float], weights: Sequence[float] | None = None
) -> list[float]:
    """The step-up adjustment of Benjamini and Hochberg (1995, JRSS B 57:289).

    Rejecting where the adjusted p-value is at most α keeps the expected share of true hypotheses
    among the rejected ones at most α, for tests that are independent or positively dependent.

    Arguments, result and errors as for `holm`; weights as Genovese, Roeder and Wasserman (2006,
    Biometrika 93:509) use them.
    """
    given = _weighted(p_values, weights)
    if not given:
        return []
    from scipy.stats import false_discovery_control

    mean = math.fsum(given) / len(given)
    scaled = [min(1.0, p / (w / mean)) for p, w in zip(p_values, given, strict=True)]
    return [float(p) for p in false_discovery_control(scaled, method="bh")]


def _weighted(p_values: Sequence[float], weights: Sequence[float] | None) -> list[float]:
    given = [1.0] * len(p_values) if weights is None else list(weights)
    for p, weight in zip(p_values, given, strict=True):
        if not 0 <= p <= 1:  # also refuses NaN
            raise ValueError(f"a p-value lies between 0 and 1, not at {p}")
        if not 0 < weight < math.inf:
            raise ValueError(f"a weight is a positive number, not {weight}")
    return given
