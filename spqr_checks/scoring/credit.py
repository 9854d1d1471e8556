"""How far a cell counts: 1 where it is shown to meet its threshold, 0 where it is shown not to.

In between the credit rises with the probability, given the images, that the cell meets its
threshold; so one image more or less moves the score by a little and never by a whole cell. The
errors that verdicts allow are cut off at both ends: what could be decided counts as decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.statistics.betting import Floats
from spqr_checks.statistics.intervals import deviations, quantile

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_REACH = 5.0
"""Half-width of what is integrated, in 1/√n: ten deviations of arcsin √p, seven at 0 and 1."""
_PRIOR = 0.5
_normal_above = np.frompyfunc(lambda z: math.erfc(z / math.sqrt(2)) / 2, 1, 1)


def credit(result: CellResult, level: float) -> float | None:
    """The credit of a cell from what its scorecard says, in [0, 1].

    Args:
        level: of the cell's interval and verdict.

    Returns:
        None for a control, and where nothing was measured.
    """
    if result.cell.is_control or result.verdict not in MEASURED or result.value is None:
        return None
    return float(credits(result, [result.value], level)[0])


def credits(result: CellResult, values: Sequence[float] | Floats, level: float) -> Floats:
    """The credits that a measured cell would have with other values, shape of ``values``.

    With P the probability that the threshold is met and α = 1 − level, the credit is
    (P − α) / (1 − 2α), from 0 to 1. P comes from

    * rates: the posterior Beta(k + ½, n − k + ½) (Jeffreys), where n is ``effective_n`` of the
      details if images of one prompt resemble each other;
    * drift: the Dirichlet posterior of images gained, lost and neither, a half added to each, as a
      normal distribution with its mean and variance;
    * anything else, and rates corrected for the judge's errors: a normal distribution whose
      quantiles are the bounds of the interval.

    A cell without an interval has no distribution: it counts if it has passed.
    """
    quantile(level, 1)  # refuses what it refuses
    at, alpha = np.asarray(values, np.float64), 1 - level
    details, threshold, interval = result.details, result.threshold, result.interval
    if result.unit == "rate" and "corrected_rate" not in details:
        n = float(details.get("effective_n", result.n))
        rates = np.linspace(0, 1, math.ceil(n) + 1)
        met = np.interp(at, rates, _rates_met(n, len(rates), threshold))
    elif interval is None or result.value is None:
        return np.full(at.shape, float(result.verdict == "pass"))
    else:
        moved = at - result.value
        centre, (below, above) = result.value, deviations(result.value, interval, level)
        if result.unit == "points" and {"gained", "lost"} <= details.keys():
            centre, below = _drift(result)
            above = below
        elif result.unit == "rate":
            bounds = (details["corrected_low"], details["corrected_high"])
            width = interval[1] - interval[0]
            centre, threshold = details["corrected_rate"], details["corrected_threshold"]
            moved = moved * ((bounds[1] - bounds[0]) / width if width > 0 else 1.0)
            below, above = deviations(centre, bounds, level)
        gap = centre + moved - threshold
        if result.cell.row.direction == "at_least":
            gap, below, above = -gap, above, below
        deviation = np.where(gap > 0, below, above)
        sure = np.where(gap > 0, math.inf, -math.inf)  # known exactly
        z_gap = np.divide(gap, deviation, out=sure, where=deviation > 0)
        met = np.asarray(_normal_above(z_gap), np.float64)
    return np.clip((met - alpha) / (1 - 2 * alpha), 0.0, 1.0)


def _drift(result: CellResult) -> tuple[float, float]:
    """Mean and standard deviation of the drift's posterior, in percentage points."""
    n = float(result.details.get("effective_n", result.n))
    moved = n * (result.details["gained"] + result.details["lost"]) / result.n
    total, value = n + 3 * _PRIOR, result.value or 0.0
    mean = n * value / total
    variance = ((moved + 2 * _PRIOR) / total - (mean / 100) ** 2) / (total + 1)
    return mean, 100 * math.sqrt(max(0.0, variance))


@lru_cache(maxsize=1 << 10)
def _rates_met(n: float, points: int, threshold: float) -> Floats:
    """P(p ≤ threshold) under Jeffreys' posterior, for rates at equal steps from 0 to 1.

    In θ = arcsin √p that prior is flat and the posterior sin²ᵏθ cos²⁽ⁿ⁻ᵏ⁾θ, which is smooth:
    Gauss and Legendre's rule on both sides of the threshold gives ten digits.
    """
    if not 0 < threshold < 1:
        return np.full(points, float(threshold >= 1))
    rate = np.linspace(0, 1, points)[:, None]
    k, peak, reach = n * rate, np.arcsin(np.sqrt(rate)), _REACH / math.sqrt(n)
    low, high = np.maximum(0.0, peak - reach), np.minimum(math.pi / 2, peak + reach)
    split = np.clip(math.asin(math.sqrt(threshold)), low, high)

    def mass(start: Floats, end: Floats) -> Floats:
        theta = (start + end) / 2 + (end - start) / 2 * _NODES
        heights = 2 * (k * np.log(np.sin(theta)) + (n - k) * np.log(np.cos(theta)))
        return np.asarray((np.exp(heights - highest) @ _WEIGHTS) * (end - start)[:, 0])

    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(rate > 0, k * np.log(rate), 0.0)
        highest = logs + np.where(rate < 1, (n - k) * np.log1p(-rate), 0.0)
        met, missed = mass(low, split), mass(split, high)
    return np.asarray(met / (met + missed))
