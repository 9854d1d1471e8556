"""Whether something differs between two candidates: exact tests of signs, bounds of differences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from spqr_checks.statistics.intervals import Interval


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

    def hypotenuse(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))

    low = hypotenuse(first - first_bounds[0], second_bounds[1] - second)
    high = hypotenuse(first_bounds[1] - first, second - second_bounds[0])
    return first - second - low, first - second + high
