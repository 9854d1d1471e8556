"""Intervals of axes and of SPQR from the replicates of their cells.

Each cell brings replicates of its score (see `statistics.resampling`), drawn alike in all cells.
An axis of replicates is the mean over cells, replicate by replicate, as its value is over scores;
so what cells have in common is in it without a model of it.

Fine-tuning seeds are a sample of the fine-tunings that users will do. Where a profile and data set
has several, the spread between them beyond what images explain enters R as a random effect with
Student's t: few seeds say little about the next one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.protocols import harmonic_mean
from spqr_checks.statistics.intervals import Interval
from spqr_checks.statistics.resampling import Floats, percentile_interval, student


def axis_replicates(
    results: Sequence[CellResult], weights: Sequence[float], seeds_vary: bool
) -> Floats | None:
    """Replicates of the weighted mean score, in [0, 1].

    Args:
        results: the measured cells of an axis.
        weights: of each in the mean.
        seeds_vary: whether cells that differ in the fine-tuning seed alone are a sample of seeds.

    Returns:
        Shape (draws,); None if a cell has no replicates, as those read from a file.
    """
    if not results or any(len(result.replicates) == 0 for result in results):
        return None
    drawn = np.stack([np.asarray(result.replicates, np.float64) for result in results])
    mean = np.asarray(weights) @ drawn
    if seeds_vary:
        for name, members in _by_tuning(results).items():
            share = sum(weights[i] for i in members)
            mean = mean + share * _between_seeds(drawn[members], name)
    return np.asarray(np.clip(mean, 0.0, 1.0))


def seed_spread(results: Sequence[CellResult]) -> dict[str, tuple[int, float]]:
    """By profile and data set: number of seeds, and standard deviation of the value over them."""
    values = [math.nan if result.value is None else result.value for result in results]
    return {
        name: (
            len(members),
            float(np.std([values[i] for i in members], ddof=1)) if len(members) > 1 else math.nan,
        )
        for name, members in _by_tuning(results).items()
    }


def spqr_interval(
    axes: Sequence[Floats | None], estimate: float | None, level: float
) -> Interval | None:
    """Interval of the harmonic mean of the axes; None where an axis has no replicates."""
    known = [drawn for drawn in axes if drawn is not None]
    if estimate is None or len(known) < len(axes):
        return None
    draws = zip(*(drawn.tolist() for drawn in known), strict=True)
    replicates = np.array([harmonic_mean(*values) for values in draws])
    return percentile_interval(replicates, estimate, level)


def _by_tuning(results: Sequence[CellResult]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, result in enumerate(results):
        tuning = result.cell.state.tuning
        if tuning is not None:
            groups.setdefault(f"{tuning.profile}.{tuning.dataset}", []).append(index)
    return groups


def _between_seeds(drawn: Floats, name: str) -> Floats | float:
    """Noise of the mean over seeds that their images do not explain."""
    seeds = len(drawn)
    if seeds < 2:
        return 0.0
    between = float(np.var(drawn.mean(1), ddof=1))
    within = float(drawn.var(1).mean())
    return float(np.sqrt(max(0.0, between - within) / seeds)) * student(seeds - 1, name)
