"""The difference of two rates measured on the same images: drift, image by image."""

from __future__ import annotations

import math

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

    def hypotenuse(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

    difference = (gained - lost) / n
    low = difference - hypotenuse(after - low_after, high_before - before)
    high = difference + hypotenuse(high_after - after, before - low_before)
    return max(-1.0, low), min(1.0, high)


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    """Phi of the two-by-two table with Newcombe's correction, 0 where a margin is empty."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if margins == 0:
        return 0.0
    cross = both * neither - gained * lost
    if cross > 0:
        cross_corrected = max(cross - (both + gained + lost + neither) / 2, 0.0)
    else:
        cross_corrected = float(cross)
    return cross_corrected / math.sqrt(margins)
