"""What differs on the same images: intervals of paired differences, and exact tests of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from spqr_checks.statistics.betting import Floats
from spqr_checks.statistics.intervals import Interval, Sides, wilson

Counts: TypeAlias = npt.NDArray[np.int64]

_LEFT_OUT = 1e-9
"""Probability of the tables that are not summed up."""
_ROUNDED, _CANCELLED = 1 + 1e-6, 1e-12
"""More than rounding adds to a probability, and to a difference of two."""


def newcombe(
    both: int, gained: int, lost: int, neither: int, level: float = 0.95, sides: Sides = 2
) -> Interval:
    """Hybrid-score interval of rate(after) − rate(before) on paired observations.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions
    based on paired data", Statistics in Medicine 17:2635–2650, method 10: Wilson limits of the
    two marginal rates, squared and added, with the correlation phi estimated from the table and
    pulled towards zero by n/2 where it is positive.

    Args:
        both: pairs with the event before and after.
        gained: pairs with the event only after.
        lost: pairs with the event only before.
        neither: pairs without the event.
        level: confidence of the interval or, with one side, of each bound taken alone.
        sides: 2 for an interval, 1 for one-sided bounds.

    Returns:
        Bounds of (gained − lost) / n, in rates (multiply by 100 for percentage points).

    Raises:
        ValueError: negative counts, no pairs, or a bad level.
    """
    if min(both, gained, lost, neither) < 0:
        raise ValueError(f"negative count among {(both, gained, lost, neither)}")
    n = both + gained + lost + neither
    low_after, high_after = wilson(both + gained, n, level, sides)
    low_before, high_before = wilson(both + lost, n, level, sides)
    after, before = (both + gained) / n, (both + lost) / n
    phi = _correlation(both, gained, lost, neither)
    difference = (gained - lost) / n
    low = difference - _hypotenuse(after - low_after, high_before - before, phi)
    high = difference + _hypotenuse(high_after - after, before - low_before, phi)
    return max(-1.0, low), min(1.0, high)


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    """Phi of the two-by-two table with Newcombe's correction, 0 where a margin is empty."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if margins == 0:
        return 0.0
    cross = both * neither - gained * lost
    corrected = max(cross - (both + gained + lost + neither) / 2, 0.0) if cross > 0 else cross
    return corrected / math.sqrt(margins)


def mcnemar(gained: int, lost: int) -> float:
    """Exact one-sided p-value of McNemar's test that more is gained than lost.

    McNemar 1947, Psychometrika 12:153, with the binomial distribution instead of its limit.

    Args:
        gained: pairs with the event only after.
        lost: pairs with the event only before.

    Returns:
        P(X ≥ gained) for X binomial with gained + lost trials at one half; 1 without such pairs.

    Raises:
        ValueError: negative counts.
    """
    if min(gained, lost) < 0:
        raise ValueError(f"negative count among {(gained, lost)}")
    return sign_flips([1] * gained + [-1] * lost)


def sign_flips(differences: Sequence[int]) -> float:
    """Exact one-sided p-value that paired differences lie above zero (Fisher's randomisation test).

    Where the two sides of every pair could as well be exchanged, each difference has either sign
    with probability one half. McNemar's test is the case of differences of −1, 0 and 1.

    Returns:
        The share of all assignments of signs whose sum is at least the observed one.
    """
    sums = {0: 1}
    magnitudes = Counter(abs(difference) for difference in differences if difference)
    for size, count in magnitudes.items():
        ways = [math.comb(count, plus) for plus in range(count + 1)]
        longer: Counter[int] = Counter()
        for reached, so_far in sums.items():
            for plus, more in enumerate(ways):
                longer[reached + size * (2 * plus - count)] += so_far * more
        sums = dict(longer)
    observed = sum(differences)
    return sum(ways for total, ways in sums.items() if total >= observed) / sum(sums.values())


@lru_cache(maxsize=1 << 10)
def paired_tails(gained: int, lost: int, n: int, difference: float) -> tuple[float, float]:
    """Exact p-values of a paired difference of rates: that it is below, and above, the given one.

    The tables are ordered by the score statistic with its restricted estimate (Tango 1998,
    Statistics in Medicine 17:891), and the probability of one at least as far out is the largest
    over the rate of loss, which the hypothesis leaves open (Hsueh, Liu and Chen 2001, Biometrics
    57:478, who show that no difference further inside the hypothesis exceeds it).

    Args:
        gained: of ``n`` pairs, those with the event only after.
        lost: those with the event only before.
        difference: of the rates of the two, in (−1, 1).

    Returns:
        P-values against "at or above the difference" and against "at or below it".

    Raises:
        ValueError: counts that cannot be, or a difference outside (−1, 1).
    """
    if min(gained, lost) < 0 or n < max(1, gained + lost):
        raise ValueError(f"{gained} gained and {lost} lost of {n} pairs")
    if not -1 < difference < 1:
        raise ValueError(f"a difference of rates lies between -1 and 1, not at {difference}")
    if difference < 0:
        low, high = paired_tails(lost, gained, n, -difference)
        return high, low
    observed = float(_score(np.array(gained), np.array(lost), n, difference))
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])  # of factorials
    beyond = _beyond(observed + 1e-9, n, difference)
    reached = _beyond(float(np.nextafter(observed - 1e-9, -math.inf)), n, difference)
    # evenly spaced in the angle, where a rate's standard error does not depend on the rate
    angles = np.linspace(0, math.pi / 2, max(48, 4 * math.isqrt(n)) + 1)[:-1]
    rates = ((1 - difference) / 2 * np.sin(angles) ** 2).tolist()
    exactly = cache(lambda rate: _tails(n, rate, difference, beyond, reached, logs))
    bounds = [_tail_bounds(n, rate, difference, beyond, reached, logs) for rate in rates]
    found = []
    for side in (0, 1):
        largest = 0.0
        # most rates are ruled out: what can at most come of them changes the maximum no more
        for bound, rate in sorted(zip((b[side] for b in bounds), rates, strict=True), reverse=True):
            highest = max(largest, bound) + _LEFT_OUT
            if largest + _LEFT_OUT in (highest, max(1.0, largest + _LEFT_OUT)):
                break
            largest = max(largest, exactly(rate)[side])
        found.append(min(1.0, largest + _LEFT_OUT))
    return found[0], found[1]


def _tails(
    n: int, losing: float, difference: float, beyond: Counts, reached: Counts, logs: Floats
) -> tuple[float, float]:
    """Probabilities of gains below the edge ``beyond`` and from the edge ``reached`` on.

    Args:
        losing: rate of loss; that of gains is larger by the difference.
        beyond, reached: by the number of losses.
        logs: those of factorials.
    """
    up, down = (_likely(n, rate) for rate in (losing + difference, losing))
    # a multinomial is three Poisson variables whose sum is known
    rest = n - up[0] - down[0] - np.arange(len(up) + len(down) - 1)
    stays = np.where(
        rest >= 0, _poisson(np.maximum(rest, 0), n * (1 - 2 * losing - difference), logs), 0.0
    )
    chance = sliding_window_view(stays, len(up)) * _poisson(up, n * (losing + difference), logs)
    below = np.zeros((len(down), len(up) + 1))
    np.cumsum(chance, axis=1, out=below[:, 1:])
    weight = _poisson(down, n * losing, logs) / _poisson(np.array([n]), float(n), logs)
    rows = np.arange(len(down))
    least, most = (
        weight @ below[rows, np.clip(edge[down] - up[0], 0, len(up))] for edge in (beyond, reached)
    )
    return float(least), float(weight @ below[:, -1] - most)


def _tail_bounds(
    n: int, losing: float, difference: float, beyond: Counts, reached: Counts, logs: Floats
) -> tuple[float, float]:
    """What `_tails` cannot exceed, rounding included.

    With so many losses the gains are binomial, whose tails are bounded by the relative entropy
    (Chernoff 1952; Hoeffding 1963, theorem 1).
    """
    lost = _likely(n, losing)
    left = n - lost
    ways = logs[n] - logs[lost] - logs[left]
    chance = np.exp(ways + _times_log(lost, losing) + _times_log(left, 1 - losing))
    gaining = (losing + difference) / (1 - losing)
    bounds = []
    for edge, side in ((beyond[lost] - 1, -1), (reached[lost], 1)):
        gained = edge.clip(0, left)
        staying = left - gained
        with np.errstate(divide="ignore", invalid="ignore"):
            share = gained / left
            entropy = _times_log(gained, gaining) + _times_log(staying, 1 - gaining)
            entropy -= np.where(gained > 0, gained * np.log(share), 0.0)
            entropy -= np.where(staying > 0, staying * np.log(staying / left), 0.0)
        tail = np.where(side * (share - gaining) > 0, np.exp(np.minimum(0.0, entropy)), 1.0)
        tail[(edge < 0) | (edge > left)] = 0.0
        bounds.append(float(chance @ tail) * _ROUNDED)
    return bounds[0], bounds[1] + _CANCELLED


def _times_log(counts: Counts, rate: float) -> Floats:
    """Logarithm of the rate to the power of each count."""
    if rate <= 0:
        return np.where(counts == 0, 0.0, -math.inf)
    return np.asarray(counts * math.log(rate))


def _beyond(score: float, n: int, difference: float) -> Counts:
    """For each number of losses the fewest gains of a higher score, which grows with the gains."""
    lost = np.arange(n + 1)
    low, high = np.zeros(n + 1, np.int64), n + 1 - lost
    while bool((left := low < high).any()):
        middle = (low + high) // 2
        higher = _score(middle, lost, n, difference) > score
        low, high = np.where(left & ~higher, middle + 1, low), np.where(left & higher, middle, high)
    return low


def _poisson(counts: Counts, mean: float, logs: Floats) -> Floats:
    """Probabilities of counts; ``logs`` are those of factorials."""
    if mean == 0:
        return np.asarray(counts == 0, np.float64)
    return np.exp(counts * math.log(mean) - mean - logs[counts])


def _likely(n: int, rate: float) -> npt.NDArray[np.int64]:
    """Counts that a binomial variable takes but with a probability of less than `_LEFT_OUT`."""
    reach = 12 + 8 * math.sqrt(n * rate * (1 - rate)) + 16 * (rate > 0)
    return np.arange(max(0, math.floor(n * rate - reach)), min(n, math.ceil(n * rate + reach)) + 1)


def _score(gained: Counts, lost: Counts, n: int, difference: float) -> Floats:
    """Tango's statistic: deviation from the difference over its error if the hypothesis holds."""
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    losing = (np.sqrt(b * b - 8 * n * c) - b) / (4 * n)
    variance = n * (2 * losing + difference * (1 - difference))
    return np.asarray((gained - lost - n * difference) / np.sqrt(np.maximum(variance, 1e-12)))


def difference_bounds(
    first: float,
    first_bounds: Interval,
    second: float,
    second_bounds: Interval,
    correlation: float = 0.0,
) -> Interval:
    """Bounds of first − second from the bounds of each (MOVER).

    Zou and Donner 2008, "Construction of confidence limits about effect measures: a general
    approach", Statistics in Medicine 27:1693: distances to the bounds are added in squares.

    Args:
        correlation: of the two estimates.
    """
    low = _hypotenuse(first - first_bounds[0], second_bounds[1] - second, correlation)
    high = _hypotenuse(first_bounds[1] - first, second - second_bounds[0], correlation)
    return first - second - low, first - second + high


def _hypotenuse(x: float, y: float, correlation: float) -> float:
    return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))
