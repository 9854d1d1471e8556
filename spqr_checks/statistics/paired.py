"""What differs on the same images: intervals of paired differences, and exact tests of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from spqr_checks.statistics.intervals import Interval, Sides, wilson


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
