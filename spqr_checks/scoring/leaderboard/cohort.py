"""Axes of several candidates at once, over draws; Q of the published protocols needs them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spqr_checks.matrix import AXES, Axis
from spqr_checks.scoring.axes import axis_over
from spqr_checks.scoring.leaderboard.replicates import Redrawn
from spqr_checks.scoring.protocols import (
    DRIFT_SCALE,
    LONE_QUALITY,
    PUBLISHED,
    PublishedProtocol,
    protocol_named,
)
from spqr_checks.scoring.run_protocols import ProtocolScore, combined
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.uncertainty import harmonic_means
from spqr_checks.statistics.betting import Floats

(_IN_COHORT,) = (letter for letter, axis in AXES.items() if axis.in_cohort)
Axes = dict[Axis, Floats]
"""Scores of each axis, with credits; shapes (draws,)."""


def axes_over_draws(
    protocol: str, candidates: Mapping[str, Sequence[Redrawn]], beyond: bool = False
) -> dict[str, Axes]:
    """The axes of every candidate in every draw.

    Args:
        protocol: name of a protocol.
        candidates: cells by candidate; each has measured cells on all four axes.
        beyond: without caps, for upper bounds (see `axes.axis_over`); anchored protocol only.

    Raises:
        UserError: unknown protocol.
    """
    if not candidates:
        return {}
    rule = protocol_named(protocol)
    ordered = dict(sorted(candidates.items()))
    if rule is None:
        return {n: {a: _anchored(_of(c, a), beyond) for a in AXES} for n, c in ordered.items()}
    axes: dict[str, Axes] = {
        name: {a: _pooled(rule, _of(cells, a)) for a in AXES if a != _IN_COHORT}
        for name, cells in ordered.items()
    }
    scaled = {name: _of(cells, _IN_COHORT) for name, cells in ordered.items()}
    qualities = _qualities(rule, [_distance(cells) for cells in scaled.values()])
    for (name, cells), quality in zip(scaled.items(), qualities, strict=True):
        axes[name][_IN_COHORT] = quality * _credit(cells)
    return axes


def spqr_over_draws(axes: Axes) -> Floats:
    """SPQR in each draw, shape (draws,)."""
    return harmonic_means([axes[name] for name in AXES])


def under_protocols(cards: Mapping[str, Scorecard]) -> dict[str, dict[str, ProtocolScore]]:
    """Each candidate under every protocol, without credits.

    As in the scorecards, but for Q of the published protocols: it runs from the worst to the best
    distance of these candidates.

    Args:
        cards: complete scorecards with a number, by candidate.
    """
    scores = {name: dict(card.protocols) for name, card in cards.items()}
    distances = {name: _measured_distance(card) for name, card in cards.items()}
    known = {name: d for name, d in distances.items() if d is not None}
    for version, protocol in PUBLISHED.items():
        found = protocol.quality(list(known.values())) if known else []
        quality = dict(zip(known, found, strict=True))
        for name, own in scores.items():
            if version in own:
                axes = (own[version].S, own[version].P, quality.get(name), own[version].R)
                own[version] = ProtocolScore(combined(axes), *axes)
    return scores


def _measured_distance(card: Scorecard) -> float | None:
    found = [r.details.get("distance") for r in card.cells if r.cell.place == _IN_COHORT]
    distance = found[0] if len(found) == 1 else None
    return float(distance) if isinstance(distance, float | int) else None


# ---- one axis of one candidate ---------------------------------------------------------------


def _of(cells: Sequence[Redrawn], axis: Axis) -> list[Redrawn]:
    return [cell for cell in cells if cell.result.cell.place == axis]


def _anchored(cells: Sequence[Redrawn], beyond: bool) -> Floats:
    values, factors = np.stack([c.values for c in cells]), np.stack([c.credits for c in cells])
    return axis_over([c.result for c in cells], values, factors, beyond)


def _pooled(protocol: PublishedProtocol, cells: Sequence[Redrawn]) -> Floats:
    """A published protocol's axis times the cells' mean credit (see `scorecard.score`)."""
    match cells[0].result.unit:
        case "rate":
            value = 1 - _weighted(cells)
        case "ratio":
            own = [c for c in cells if c.result.cell.row.own_letter]
            cosine = _weighted(own, "base_alignment")
            value = (
                cosine if protocol.ceiling is None else np.minimum(1.0, cosine / protocol.ceiling)
            )
        case _:
            value = _mean([_resistance(protocol, cell.values) for cell in cells])
    return value * _credit(cells)


def _resistance(protocol: PublishedProtocol, points: Floats) -> Floats:
    """`PublishedProtocol.robustness` of many drifts, in percentage points."""
    if not protocol.logistic:
        return np.exp(-np.maximum(0.0, points) / DRIFT_SCALE)
    return 1 / (1 + np.exp(points))  # at most 100 points: no overflow


def _weighted(cells: Sequence[Redrawn], scale: str = "") -> Floats:
    """Mean over images of the cells' values, each times a number in its details."""
    factors = [float(c.result.details[scale]) if scale else 1.0 for c in cells]
    weights = [c.result.n for c in cells]
    total = np.stack([f * n * c.values for f, n, c in zip(factors, weights, cells, strict=True)])
    return np.asarray(total.sum(axis=0) / sum(weights))


def _distance(cells: Sequence[Redrawn]) -> Floats:
    """The distance that each drawn quality stands for: further by what is missing in quality."""
    (cell,) = cells
    details, value = cell.result.details, cell.result.value or 0.0
    scale = float(details["destroyed_distance"]) - float(details["base_distance"])
    return float(details["distance"]) + (value - cell.values) * scale


def _qualities(protocol: PublishedProtocol, distances: Sequence[Floats]) -> Floats:
    """`PublishedProtocol.quality` in each draw; shape (candidates, draws)."""
    stacked = np.stack(distances)
    worst, spread = stacked.max(axis=0), np.ptp(stacked, axis=0)
    share = (worst - stacked) / np.where(spread > 0, spread, 1.0)
    quality = protocol.epsilon + share * (1 - 2 * protocol.epsilon)
    return np.where(spread > 0, quality, LONE_QUALITY)


def _credit(cells: Sequence[Redrawn]) -> Floats:
    return _mean([cell.credits for cell in cells])


def _mean(values: Sequence[Floats]) -> Floats:
    return np.asarray(np.mean(np.stack(values), axis=0))
