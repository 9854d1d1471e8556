"""Intervals of axes and of SPQR from the replicates of their cells.

Each cell brings replicates of its value (see `statistics.resampling`), drawn alike in all cells.
An axis of replicates follows from them as the axis from the values, replicate by replicate; so
what cells have in common is in it without a model of it.

Fine-tuning seeds are a sample of the fine-tunings that users will do. Where a profile and data set
has several, the mean drift over them gets a random effect with Student's t: few seeds say little
about the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TypeAlias

import numpy as np

from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.statistics.betting import Floats
from spqr_checks.statistics.intervals import Interval
from spqr_checks.statistics.resampling import percentile_interval, student

Student: TypeAlias = Callable[[int, str], Floats]
"""Draws from Student's t distribution, by degrees of freedom and what they are for."""


def replicates(results: Sequence[CellResult]) -> Floats | None:
    """Replicates of the values of cells, with the random effect of fine-tuning seeds.

    Returns:
        Shape (cells, draws); None if a cell has no replicates, as those read from a file.
    """
    if not results or any(len(result.replicates) == 0 for result in results):
        return None
    drawn = np.stack([np.asarray(result.replicates, np.float64) for result in results])
    return with_seed_effects(results, drawn, student)


def with_seed_effects(results: Sequence[CellResult], drawn: Floats, draw: Student) -> Floats:
    """The drawn values of drift cells, whose mean over seeds varies as that of other seeds would.

    Of the mean over S seeds the variance is that of what all share (the images before
    fine-tuning), as drawn, and 1/S of that between seeds. The variance of the S measured drifts
    comes with Student's t, as it has S - 1 degrees of freedom only; what the seeds' own images
    explain, which is known better, is the least that there is. Other cells are left as they are.

    Args:
        drawn: shape (cells, draws).
    """
    effects = np.zeros_like(drawn)
    for name, members in by_tuning(results).items():
        seeds = len(members)
        if seeds < 2 or any(results[i].unit != "points" for i in members):
            continue
        moved = drawn[members] - drawn[members].mean(1, keepdims=True)
        common = moved.mean(0)
        alone, together = float(moved.var(1).mean()), float(common.var())
        shared = max(0.0, (seeds * together - alone) / (seeds - 1))
        measured = [results[i].value or 0.0 for i in members]
        t = draw(seeds - 1, name)
        between = float(np.std(measured, ddof=1)) * t
        images = math.sqrt(max(0.0, alone - shared)) * _normal_scores(t)
        noise = np.where(np.abs(between) > np.abs(images), between, images)
        kept = math.sqrt(min(1.0, shared / together)) if together > 0 else 1.0
        effects[members] = (kept - 1) * common + noise / math.sqrt(seeds)
    return drawn + effects


def _normal_scores(draws: Floats) -> Floats:
    """Standard normal quantiles in the order of the draws."""
    scores = np.empty(len(draws))
    shares = (np.arange(len(draws)) + 0.5) / len(draws)
    scores[np.argsort(draws)] = [NormalDist().inv_cdf(share) for share in shares.tolist()]
    return scores


def seed_spread(results: Sequence[CellResult]) -> dict[str, tuple[int, float]]:
    """By profile and data set: number of seeds, and standard deviation of the value over them."""
    values = [math.nan if result.value is None else result.value for result in results]
    return {
        name: (
            len(members),
            float(np.std([values[i] for i in members], ddof=1)) if len(members) > 1 else math.nan,
        )
        for name, members in by_tuning(results).items()
    }


def by_tuning(results: Sequence[CellResult]) -> dict[str, list[int]]:
    """Indices of the results of changed states, by profile and data set, or by adaptation."""
    groups: dict[str, list[int]] = {}
    for index, result in enumerate(results):
        tuning, change = result.cell.state.tuning, result.cell.state.change
        if change is not None:
            name = change.name if tuning is None else f"{tuning.profile}.{tuning.dataset}"
            groups.setdefault(name, []).append(index)
    return groups


def harmonic_means(axes: Sequence[Floats]) -> Floats:
    """`protocols.harmonic_mean` of the axes in each draw, in their shape."""
    stacked = np.stack(axes)
    divisors = np.where(stacked > 0, stacked, 1.0)
    return np.where(stacked.min(axis=0) > 0, len(axes) / (1 / divisors).sum(axis=0), 0.0)


def spqr_interval(
    axes: Sequence[Floats | None], estimate: float | None, level: float
) -> Interval | None:
    """Interval of the harmonic mean of the axes; None where an axis has no replicates."""
    known = [drawn for drawn in axes if drawn is not None]
    if estimate is None or len(known) < len(axes):
        return None
    return interval_below_one(harmonic_means(known), estimate, level)


def interval_below_one(drawn: Floats, estimate: float, level: float) -> Interval:
    """The lower bound from capped draws, the upper one from those without a cap, at most 1.

    Args:
        drawn: shape (2, draws), see `axes.axis_over`.
    """
    low, high = (percentile_interval(draws, estimate, level) for draws in drawn)
    return low[0], min(1.0, high[1])
