"""Four axes to one number."""

from __future__ import annotations

import math


def spqr(s: float, p: float, q: float, r: float) -> float:
    """Harmonic mean 4 / (1/S + 1/P + 1/Q + 1/R) (SPQR, arXiv 2511.19558); the same in all versions.

    Args:
        s, p, q, r: axes, at most 1. An axis at or below zero makes the score 0: what is lost on
            one axis cannot be bought back on another.

    Returns:
        The score, between the smallest and the largest axis.

    Raises:
        ValueError: an axis that is not finite or above 1.
    """
    axes = (s, p, q, r)
    for name, value in zip("SPQR", axes, strict=True):
        if not math.isfinite(value) or value > 1:
            raise ValueError(f"axis {name} is {value}; an axis is a number of at most 1")
    low, high = min(axes), max(axes)
    if low <= 0:
        return 0.0
    # sorted, so that the order of the axes does not change the last digit
    mean = 4 / sum(sorted(1 / value for value in axes))
    return min(max(mean, low), high)
