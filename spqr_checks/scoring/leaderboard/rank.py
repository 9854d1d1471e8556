"""Candidates side by side, ranked by SPQR as far as their measurements decide it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from spqr_checks.errors import UserError
from spqr_checks.hashing import digest
from spqr_checks.matrix import AXES, Axis
from spqr_checks.scoring.cell_result import DECIMALS
from spqr_checks.scoring.comparable import refuse_differences, shared_settings
from spqr_checks.scoring.credit import credit
from spqr_checks.scoring.leaderboard import cohort
from spqr_checks.scoring.leaderboard.board import (
    VERSION,
    AxisScore,
    Comparison,
    Entry,
    Leaderboard,
    Row,
    by_category,
    drifts_of,
)
from spqr_checks.scoring.leaderboard.replicates import as_measured, redraw
from spqr_checks.scoring.protocols import ANCHORED, harmonic_mean
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.scoring.uncertainty import interval_below_one
from spqr_checks.statistics.intervals import Interval
from spqr_checks.statistics.resampling import percentile_interval

DRAWS = 2000
LEVEL = 0.95
_TOLERANCE = 1e-4
_CREDIT_TOLERANCE = 1e-2
"""What the rounding of a narrow interval in files may do to a credit."""


def rank(entries: Sequence[Entry], *, seed: int = 0, draws: int = DRAWS) -> Leaderboard:
    """Ranks candidates by their SPQR, with the uncertainty of the order.

    Intervals are percentiles of `replicates`, widened to hold what was measured. Two candidates
    are told apart where the interval of their paired difference excludes zero, and a candidate's
    ranks run from one more than those that are certainly better to those that are not certainly
    worse. The result does not depend on the order of the entries.

    Args:
        entries: candidates under distinct names.
        seed: of the draws; equal seeds give equal intervals.
        draws: replicates, at least 100.

    Raises:
        UserError: scorecards measured under different settings, or a number that does not follow
            from its scorecard's cells.
        ValueError: no entries, equal names, or too few draws.
    """
    names = [entry.name for entry in entries]
    if not names or len(set(names)) < len(names) or draws < 100:
        raise ValueError(f"cannot rank {names} with {draws} draws")
    cards = {entry.name: entry.card for entry in entries if entry.card is not None}
    refuse_differences(cards)
    ranked = {name: card for name, card in sorted(cards.items()) if card.spqr is not None}
    common = next(iter(cards.values()), None)
    level = _level(common)
    for name, card in ranked.items():
        _refuse_edited(name, card, level)
    found = _Estimates(ranked, common.protocol if common else "", seed, draws, level)
    order = sorted(ranked, key=lambda n: (-found.spqr[n], -(ranked[n].spqr_raw or 0.0), n))
    comparisons = tuple(
        found.compare(above, below) for i, above in enumerate(order) for below in order[i + 1 :]
    )
    others = sorted((e for e in entries if e.name not in ranked), key=lambda e: e.name)
    rows = [*(Entry(name, ranked[name]) for name in order), *others]
    return Leaderboard(
        version=VERSION,
        protocol=common.protocol if common else "",
        level=level,
        draws=draws,
        seed=seed,
        rows=tuple(_row(entry, found, comparisons, level) for entry in rows),
        comparisons=comparisons,
        base=common.base if common else {},
        judges=common.judges if common else [],
        settings=shared_settings(common) if common else {},
    )


def _level(card: Scorecard | None) -> float:
    """The level of the cells' intervals, which all scorecards share."""
    level = card.settings.get("level", LEVEL) if card else LEVEL
    return level if isinstance(level, float) and 0.5 < level < 1 else LEVEL


class _Estimates:
    """Point scores and draws of the ranked candidates."""

    def __init__(
        self, cards: Mapping[str, Scorecard], protocol: str, seed: int, draws: int, level: float
    ) -> None:
        self.cards, self._level = cards, level
        self.protocols = cohort.under_protocols(cards)
        measured = {name: as_measured(card) for name, card in cards.items()}
        self._axes = cohort.axes_over_draws(protocol, measured)
        self.spqr = {name: self._spqr(name) for name in cards}
        drawn = redraw(cards, seed, draws, level)
        # a cohort's Q moves with every candidate: those without draws take part as measured
        mixed = {name: drawn.get(name, measured[name]) for name in cards}
        moving, beyond = (cohort.axes_over_draws(protocol, mixed, b) for b in (False, True))
        self._axis_draws = {
            name: {a: np.stack([moving[name][a], beyond[name][a]]) for a in AXES} for name in drawn
        }
        self._draws = {n: cohort.spqr_over_draws(axes) for n, axes in self._axis_draws.items()}

    def interval(self, name: str) -> Interval | None:
        drawn = self._draws.get(name)
        return None if drawn is None else interval_below_one(drawn, self.spqr[name], self._level)

    def axis(self, name: str, axis: Axis) -> AxisScore:
        card, value, drawn = self.cards[name], self._value(name, axis), self._axis_draws.get(name)
        interval = None if drawn is None else interval_below_one(drawn[axis], value, self._level)
        known = self.protocols[name].get(card.protocol)
        return AxisScore(
            value, card.axes[axis].raw if known is None else known.axis(axis), interval
        )

    def _value(self, name: str, axis: Axis) -> float:
        """As the scorecard says, but for a Q that depends on the cohort."""
        card = self.cards[name]
        score = card.axes[axis].score
        of_cohort = AXES[axis].in_cohort and card.protocol != ANCHORED
        return float(self._axes[name][axis][0]) if of_cohort or score is None else score

    def _spqr(self, name: str) -> float:
        card = self.cards[name]
        spqr = card.spqr
        if spqr is None or card.protocol != ANCHORED:
            spqr = harmonic_mean(*(self._value(name, axis) for axis in AXES))
        # as it stands in files, so that the last bit of a sum does not decide
        return round(spqr, DECIMALS)

    def compare(self, above: str, below: str) -> Comparison:
        difference = self.spqr[above] - self.spqr[below]
        if above not in self._draws or below not in self._draws:
            return Comparison(above, below, difference, None, False)
        interval = percentile_interval(
            self._draws[above][0] - self._draws[below][0], difference, self._level
        )
        return Comparison(above, below, difference, interval, interval[0] > 0)


def _refuse_edited(name: str, card: Scorecard, level: float) -> None:
    """Raises UserError unless the number follows from the cells beside it."""
    try:
        cells = as_measured(card)
        axes = cohort.axes_over_draws(card.protocol, {name: cells})[name]
        spqr = float(cohort.spqr_over_draws(axes)[0])
        for cell in cells:
            if not abs((credit(cell.result, level) or 0.0) - cell.credits[0]) <= _CREDIT_TOLERANCE:
                spqr = float("nan")
    except (LookupError, TypeError, ValueError):
        spqr = float("nan")
    if card.spqr is None or not abs(spqr - card.spqr) <= _TOLERANCE:
        raise UserError(
            f"{name}: the scorecard's SPQR is {card.spqr}, but its cells give {spqr:.6f}.\n"
            "It was changed, or made by another version of this program: run the candidate again."
        )


def _row(entry: Entry, found: _Estimates, comparisons: Sequence[Comparison], level: float) -> Row:
    name, card = entry.name, entry.card
    if card is None:
        return Row(name, reason=entry.fault or "there is no scorecard")
    row = Row(
        name,
        axes={a: AxisScore(card.axes[a].score, card.axes[a].raw, None) for a in AXES},
        reason=entry.fault or "; ".join(_without_number(card)),
        gate=card.gate,
        categories=by_category(card, level),
        drifts=drifts_of(card),
        protocols=card.protocols,
        fingerprint=digest(card.candidate),
    )
    if name not in found.cards:
        return row
    better = sum(c.decided for c in comparisons if c.below == name)
    worse = sum(c.decided for c in comparisons if c.above == name)
    own = found.protocols[name].get(card.protocol)
    return replace(
        row,
        place=1 + sum(other > found.spqr[name] for other in found.spqr.values()),
        ranks=(1 + better, len(found.cards) - worse),
        spqr=found.spqr[name],
        spqr_raw=card.spqr_raw if own is None else own.spqr,
        interval=found.interval(name),
        axes={a: found.axis(name, a) for a in AXES},
        reason="",
        protocols=found.protocols[name],
    )


def _without_number(card: Scorecard) -> Iterator[str]:
    """Why a run has no number, from its scorecard."""
    if not card.complete:
        first, *others = card.missing
        more = f" and {len(others)} more" if others else ""
        yield f"incomplete: {first.id} ({first.reason}){more}"
        return
    for name, axis in card.axes.items():
        if axis.score is None:
            yield f"{name} has no value: {axis.measured} of {axis.cells} cells could be measured"
