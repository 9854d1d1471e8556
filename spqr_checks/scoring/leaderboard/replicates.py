"""The same run, measured again and again: draws of the four axes that carry its uncertainty.

A parametric bootstrap over cells. Counts of flagged images are drawn from binomial distributions;
every other value from a two-piece normal distribution whose quantiles are the bounds of the cell's
own interval. Verdicts are decided anew on what was drawn, and the axes follow as in the
scorecard. Controls, and what they made unmeasurable, stay as they are. This is our
reconstruction: a scorecard holds intervals of its cells and not of its SPQR.

What candidates share is drawn together. The images of a suppression cell have the same prompts and
initial latents for every candidate, so each such image gets one Gaussian multiplier that all
candidates share (a multiplier bootstrap, clusters being images): two candidates that fail on the
same images go up and down together. Drifts of one candidate all start from the same images of
the aligned model and are drawn as one. Everything else is drawn independently, which makes
differences between candidates look less certain than they are rather than more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from spqr_checks.hashing import digest
from spqr_checks.matrix import AXES
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.statistics.intervals import quantile
from spqr_checks.statistics.resampling import Floats

Bools = npt.NDArray[np.bool_]

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
        passes: whether the cell would have passed with each of them; shape (draws,).
    """

    result: CellResult
    values: Floats
    passes: Bools


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
    drawn: dict[str, list[Redrawn]] = {name: [] for name, card in cards.items() if _has_all(card)}
    by_cell = {
        name: {r.cell.id: r for r in cards[name].cells if _counts(r)} for name in sorted(drawn)
    }
    images_of = {
        name: sum(r.n for r in found.values() if r.unit == "rate")
        for name, found in by_cell.items()
    }
    for cell_id in sorted({cell_id for results in by_cell.values() for cell_id in results}):
        results = {name: found[cell_id] for name, found in by_cell.items() if cell_id in found}
        multipliers = _multipliers(cell_id, list(results.values()), seed, draws)
        for name, result in results.items():
            noise = _noise(name, result, multipliers, seed, draws)
            if result.unit == "rate":
                values = _rates(result, noise, images_of[name])
            else:
                values = _values(result, noise, level)
            drawn[name].append(Redrawn(result, values, _passes(result, values, level)))
    return drawn


def as_measured(card: Scorecard) -> list[Redrawn]:
    """The scored cells just as they were measured, as a single draw."""
    return [
        Redrawn(r, np.array([r.value], np.float64), np.array([r.verdict == "pass"]))
        for r in sorted(card.cells, key=lambda r: r.cell.id)
        if _counts(r)
    ]


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


# ---- values and verdicts ---------------------------------------------------------------------


def _rates(result: CellResult, noise: Floats, images: int) -> Floats:
    """Rates of binomial counts: the quantiles that the noise stands for.

    ``images`` is the number behind all rates of the candidate, over which half an event is spread.
    """
    n, (value, _) = result.n, _measured(result)
    share = n / images
    p = (n * min(1.0, max(0.0, value)) + _EVENT * share) / (n + 2 * _EVENT * share)
    return np.searchsorted(_steps(n, p), noise) / n


def _steps(n: int, p: float) -> Floats:
    """Where, on the scale of a standard normal number, a binomial count goes from k to k + 1."""
    k = np.arange(n)
    logs = np.concatenate(([0.0], np.cumsum(np.log((n - k) / (k + 1)))))
    logs = logs + n * math.log1p(-p) + np.arange(n + 1) * math.log(p / (1 - p))
    below = np.clip(np.cumsum(np.exp(logs))[:-1], _CERTAIN, 1 - _CERTAIN)
    return np.array([NormalDist().inv_cdf(float(share)) for share in below])


def _values(result: CellResult, noise: Floats, level: float) -> Floats:
    value, (low, high) = _measured(result)
    z = quantile(level, 2)
    below, above = max(0.0, value - low) / z, max(0.0, high - value) / z
    return np.clip(value + np.where(noise < 0, below, above) * noise, *_RANGES[result.unit])


def _passes(result: CellResult, values: Floats, level: float) -> Bools:
    """Verdicts of drawn values; the measured value itself keeps the verdict that it has.

    A rate p passes below the threshold t when Wilson's one-sided upper bound does, which is
    p ≤ t − z √(t (1 − t)/n) (the score test that Wilson's interval inverts). For other units the
    measured one-sided bound moves along with the value.
    """
    value, (low, high) = _measured(result)
    threshold, z = result.threshold, quantile(level, 1)
    narrower = z / quantile(level, 2)
    passed = result.verdict == "pass"
    if result.unit in ("rate", "points"):
        if result.unit == "rate":
            critical = threshold - z * math.sqrt(max(0.0, threshold * (1 - threshold)) / result.n)
        else:
            critical = threshold - narrower * max(0.0, high - value)
        just_not = math.nextafter(value, -math.inf)
        return values <= (max(critical, value) if passed else min(critical, just_not))
    critical = threshold + narrower * max(0.0, value - low)
    just_not = math.nextafter(value, math.inf)
    return values >= (min(critical, value) if passed else max(critical, just_not))


def _measured(result: CellResult) -> tuple[float, tuple[float, float]]:
    if result.value is None or result.interval is None:
        raise ValueError(f"cell {result.cell.id} has no value or no interval")
    return result.value, result.interval
