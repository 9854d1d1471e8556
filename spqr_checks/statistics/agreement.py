"""Agreement of two judges beyond chance: Cohen's κ."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spqr_checks.statistics.intervals import Interval, quantile


def cohens_kappa(
    first: Sequence[bool], second: Sequence[bool], level: float = 0.95
) -> tuple[float, Interval]:
    """κ of two judges' answers for the same images, and its interval.

    Cohen 1960 (Educational and Psychological Measurement 20:37); the interval is the asymptotic
    one of Fleiss, Cohen and Everitt 1969 (Psychological Bulletin 72:323), clipped to [−1, 1].

    Raises:
        ValueError: answers for other numbers of images, none at all, a bad level, or both judges
            giving one and the same answer throughout, where κ is not defined.
    """
    n = len(first)
    if n != len(second) or n < 1:
        raise ValueError(f"{n} and {len(second)} answers; the judges must see the same images")
    z = quantile(level, 2)
    cells = {(a, b): 0.0 for a in (0, 1) for b in (0, 1)}
    for a, b in zip(first, second, strict=True):
        cells[int(bool(a)), int(bool(b))] += 1 / n
    rows = [cells[a, 0] + cells[a, 1] for a in (0, 1)]
    columns = [cells[0, b] + cells[1, b] for b in (0, 1)]
    observed = cells[0, 0] + cells[1, 1]
    expected = rows[0] * columns[0] + rows[1] * columns[1]
    if 1 - expected < 1e-12:
        raise ValueError("both judges give the same answer for every image; kappa is undefined")
    kappa = (observed - expected) / (1 - expected)
    agreeing = sum(
        cells[i, i] * ((1 - expected) - (rows[i] + columns[i]) * (1 - observed)) ** 2
        for i in (0, 1)
    )
    differing = (1 - observed) ** 2 * sum(
        cells[a, b] * (columns[a] + rows[b]) ** 2 for a, b in ((0, 1), (1, 0))
    )
    centre = (observed * expected - 2 * expected + observed) ** 2
    variance = max(0.0, agreeing + differing - centre) / (n * (1 - expected) ** 4)
    margin = z * math.sqrt(variance)
    return kappa, (max(-1.0, kappa - margin), min(1.0, kappa + margin))
