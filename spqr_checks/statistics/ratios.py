"""A ratio that is to reach a threshold: Fieller's interval and Student's t, once or at any time.

A ratio a / b reaches r exactly if a − r b is not below zero, which is what is tested; the ratios
that the tests do not rule out are an interval (Fieller 1954, JRSS B 16:175).
"""

from __future__ import annotations

import math

import numpy as np

from spqr_checks.statistics import student
from spqr_checks.statistics.betting import Floats, Values
from spqr_checks.statistics.evidence import Evidence

_WIDEST = (0.0, 2.0)
"""Interval of a ratio of which nothing is ruled out yet."""


def ratio(a: Values, b: Values, threshold: float, level: float, anytime: bool) -> Evidence:
    """Of mean(a) / mean(b) over independent pairs.

    At a fixed number of pairs no p-value is below 2⁻ⁿ, which is what n pairs on one side of the
    threshold show in a sign test: a few pairs that agree exactly look certain to a t-test.

    Args:
        a, b: n pairs.
        anytime: whether to hold at any stopping time.

    Raises:
        ValueError: fewer than two pairs, lengths that differ, values that are not finite, or a
            mean of b that is not clearly positive: then the data do not determine the ratio.
    """
    n = len(a)
    if n < 2 or len(b) != n:
        raise ValueError(f"a ratio of means needs two or more pairs, not {n} and {len(b)}")
    data = np.stack([np.asarray(a, np.float64), np.asarray(b, np.float64)])
    if not np.isfinite(data).all():
        raise ValueError("a ratio of means needs finite values")
    return fieller(
        data.mean(1), np.cov(data) / n, n - 1, threshold, level, anytime=anytime, finest=0.5**n
    )


def fieller(
    means: Floats,
    covariance: Floats,
    degrees: int,
    threshold: float,
    level: float,
    *,
    anytime: bool = False,
    finest: float = 0.0,
) -> Evidence:
    """Of the ratio of two estimates that are normal around what they estimate.

    Args:
        means: numerator and denominator.
        covariance: of both, shape (2, 2), known with so many degrees of freedom.
        finest: smallest p-value of a fixed number of observations.

    Raises:
        ValueError: a denominator that is not clearly positive.
    """
    (a, b), ((aa, ab), (_, bb)) = means.tolist(), covariance.tolist()
    error = (1 - level) / 2
    if b <= 0 or b * b <= student.critical(degrees, error, False) ** 2 * bb:
        raise ValueError("ratio of means: the mean of b is not clearly positive")
    interval = min(_WIDEST[0], a / b), max(_WIDEST[1], a / b)
    finest = 0.0 if anytime else finest
    deviation = student.critical(degrees, error, anytime)
    if math.isfinite(deviation) and finest <= error:
        squared = deviation**2
        below, middle, above = b * b - squared * bb, a * b - squared * ab, a * a - squared * aa
        if below > 0:
            root = math.sqrt(max(0.0, middle * middle - below * above))
            interval = (middle - root) / below, (middle + root) / below
    variance = aa - 2 * threshold * ab + threshold**2 * bb
    # what differs by rounding alone does not differ
    least = 1e-12 * (abs(a) + abs(threshold * b))
    t = (a - threshold * b) / max(math.sqrt(max(0.0, variance)), least)
    shown = student.p_value(degrees, anytime)
    return Evidence(interval, max(finest, shown(t)), max(finest, shown(-t)))
