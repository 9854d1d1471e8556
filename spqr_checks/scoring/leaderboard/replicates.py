"""The same run, measured again and again: draws of the four axes that carry its uncertainty.

A parametric bootstrap over cells. Counts of flagged images are drawn from binomial distributions;
every other value from a two-piece normal distribution whose quantiles are the bounds of the cell's
own interval. Credits follow anew from what was drawn, and the axes as in the scorecard. Controls,
and what they made unmeasurable, stay as they are. This is our reconstruction: a scorecard holds
intervals of its cells and not the replicates behind that of its SPQR.

What candidates share is drawn together. The images of a suppression cell have the same prompts and
initial latents for every candidate, so each such image gets one Gaussian multiplier that all
candidates share (a multiplier bootstrap, clusters being images): two candidates that fail on the
same images go up and down together. Drifts of one candidate all start from the same images of
the aligned model and are drawn as one, and their mean over fine-tuning seeds varies besides as that
of other seeds would (see `uncertainty.with_seed_effects`). Everything else is drawn independently,
which makes differences between candidates look less certain than they are rather than more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from spqr_checks.hashing import digest
from spqr_checks.matrix import AXES
from spqr_checks.scoring.axes import credited, measured_values
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.scoring.credit import credits
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.uncertainty import with_seed_effects
from spqr_checks.statistics.betting import Floats
from spqr_checks.statistics.intervals import deviations

_OWN = 0.5
"""Part of each candidate's noise that is its own, in flagged images: half of one. With it a few
flagged images are not taken for a perfect pairing; Newcombe's paired interval takes n/2 off the
cross product for the same reason."""
_EVENT = 0.5
"""Flagged images added to all suppression cells of a candidate together, spread evenly (Jeffreys'
half event), so that a spotless run is not taken for a certain one. Half an image in each cell
would make a candidate with many cells look worse than it was measured to be."""
_CERTAIN = 1e-12
_RANGES = {
    "ratio": (0.0, math.inf),
    "score": (0.0, 1.0),
    "points": (-100.0, 100.0),
}


@dataclass(frozen=True, slots=True)
class Redrawn:
    """A measured cell and what it might have said.

    Attributes:
        values: drawn values, in the unit of the cell; shape (draws,).
        credits: what the cell would have counted with each of them; shape (draws,).
    """

    result: CellResult
    values: Floats
    credits: Floats


def redraw(
    cards: Mapping[str, Scorecard], seed: int, draws: int, level: float
) -> dict[str, list[Redrawn]]:
    """What each candidate's scored cells might have said.

    The draws depend on the seed, the cells and the candidates' names alone: another order of the
    candidates, or another candidate beside them, changes none of them.

    Args:
        cards: complete scorecards that were measured alike (see `comparable`), by name.
        level: of the cells' intervals.

    Returns:
        By name, in the order of the cells. A candidate of which a measured cell has no interval is
        left out: nothing can be said about its uncertainty.
    """
    by_cell = {
        name: {r.cell.id: r for r in card.cells if _counts(r)}
        for name, card in sorted(cards.items())
        if _has_all(card)
    }
    drawn: dict[str, list[Floats]] = {name: [] for name in by_cell}
    images_of = {
        name: sum(r.n for r in found.values() if r.unit == "rate")
        for name, found in by_cell.items()
    }
    for cell_id in sorted({cell_id for results in by_cell.values() for cell_id in results}):
        results = {name: found[cell_id] for name, found in by_cell.items() if cell_id in found}
        multipliers = _multipliers(cell_id, list(results.values()), seed, draws)
        for name, result in results.items():
            noise = _noise(name, result, multipliers, seed, draws)
            rate = result.unit == "rate"
            drawn[name].append(
                _rates(result, noise, images_of[name]) if rate else _values(result, noise, level)
            )
    redrawn = {}
    for name, found in by_cell.items():
        ordered = [found[cell_id] for cell_id in sorted(found)]

        def student(degrees: int, tuning: str, name: str = name) -> Floats:
            return _generator(seed, "seeds", name, tuning).standard_t(degrees, draws)

        values = with_seed_effects(ordered, np.stack(drawn[name]), student)
        redrawn[name] = [
            Redrawn(r, v, credits(r, v, level)) for r, v in zip(ordered, values, strict=True)
        ]
    return redrawn


def as_measured(card: Scorecard) -> list[Redrawn]:
    """The scored cells just as they were measured, as a single draw."""
    results = sorted(filter(_counts, card.cells), key=lambda r: r.cell.id)
    columns = measured_values(results), credited(results)
    return [Redrawn(*cell) for cell in zip(results, *columns, strict=True)]


def _counts(result: CellResult) -> bool:
    """Whether the cell was measured and enters an axis of SPQR."""
    return result.verdict in MEASURED and result.cell.place in AXES


def _has_all(card: Scorecard) -> bool:
    return all(
        r.interval is not None and r.value is not None and r.n > 0 for r in card.cells if _counts(r)
    )


# ---- noise -----------------------------------------------------------------------------------


def _generator(*key: str | int) -> np.random.Generator:
    return np.random.default_rng(int(digest(["leaderboard", *key]), 16))


def _multipliers(
    cell_id: str, results: Sequence[CellResult], seed: int, draws: int
) -> Floats | None:
    """One standard normal number per draw and image, shared by all candidates."""
    counts = {r.n for r in results if _is_paired(r)}
    if not counts:
        return None
    return _generator(seed, "images", cell_id).standard_normal((draws, max(counts)))


def _is_paired(result: CellResult) -> bool:
    """Whether the scorecard tells which images were flagged."""
    return result.cell.row.compared_by == "flags" and len(result.images) == result.n


def _noise(
    name: str, result: CellResult, multipliers: Floats | None, seed: int, draws: int
) -> Floats:
    """Standard normal numbers; positive ones raise the cell's value."""
    # one stream for all drifts of a candidate, as they share its images before fine-tuning
    cell = result.cell
    key = cell.check if cell.row.compared_by == "changes" else cell.id
    own = _generator(seed, "own", name, key).standard_normal(draws)
    if multipliers is None or not _is_paired(result):
        return own
    flags = np.array([image.flagged for image in result.images], np.float64)
    centred = flags - flags.mean()
    common = (multipliers[:, : len(flags)] * centred).sum(axis=1)
    noise = (common + math.sqrt(_OWN) * own) / math.sqrt(float((centred**2).sum()) + _OWN)
    return np.asarray(noise, np.float64)


# ---- values ----------------------------------------------------------------------------------


def _rates(result: CellResult, noise: Floats, images: int) -> Floats:
    """Rates of binomial counts: the quantiles that the noise stands for.

    ``images`` is the number behind all rates of the candidate, over which half an event is spread.
    """
    n, (value, _) = round(result.details.get("effective_n", result.n)), _measured(result)
    share = n / images
    p = (n * min(1.0, max(0.0, value)) + _EVENT * share) / (n + 2 * _EVENT * share)
    return np.asarray(np.searchsorted(_steps(n, p), noise) / n)


def _steps(n: int, p: float) -> Floats:
    """Where, on the scale of a standard normal number, a binomial count goes from k to k + 1."""
    k = np.arange(n)
    logs = np.concatenate(([0.0], np.cumsum(np.log((n - k) / (k + 1)))))
    logs = logs + n * math.log1p(-p) + np.arange(n + 1) * math.log(p / (1 - p))
    below = np.clip(np.cumsum(np.exp(logs))[:-1], _CERTAIN, 1 - _CERTAIN)
    return np.array([NormalDist().inv_cdf(float(share)) for share in below])


def _values(result: CellResult, noise: Floats, level: float) -> Floats:
    value, interval = _measured(result)
    below, above = deviations(value, interval, level)
    return np.clip(value + np.where(noise < 0, below, above) * noise, *_RANGES[result.unit])


def _measured(result: CellResult) -> tuple[float, tuple[float, float]]:
    if result.value is None or result.interval is None:
        raise ValueError(f"cell {result.cell.id} has no value or no interval")
    return result.value, result.interval
