"""Scores of ranked candidates, their intervals, and which differences are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from spqr_checks.errors import UserError
from spqr_checks.matrix import AXES
from spqr_checks.scoring import harmonic
from spqr_checks.scoring.axes import AxisName
from spqr_checks.scoring.leaderboard import cohort
from spqr_checks.scoring.leaderboard.board import AxisScore, Comparison, Pair
from spqr_checks.scoring.protocols import ANCHORED
from spqr_checks.scoring.replicates import Floats, Redrawn, as_measured, redraw
from spqr_checks.scoring.scorecard import Scorecard

_TOLERANCE = 1e-4
DECIMALS = 6
"""SPQR is compared as it stands in files, so that the last bit of a sum does not decide."""


class Estimates:
    """Point scores and draws of the ranked candidates."""

    def __init__(
        self, cards: Mapping[str, Scorecard], protocol: str, seed: int, draws: int, level: float
    ) -> None:
        self._tail = 100 * (1 - level) / 2
        self.cards = cards
        self.protocols = cohort.under_protocols(cards)
        measured = {name: as_measured(card) for name, card in cards.items()}
        self._axes = _over_draws(protocol, measured)
        self.spqr = {name: self._spqr(name) for name in cards}
        drawn = redraw(cards, seed, draws, level)
        # a cohort's Q moves with every candidate: those without draws take part as measured
        moving = _over_draws(protocol, {name: drawn.get(name, measured[name]) for name in cards})
        self._axis_draws = {name: moving[name] for name in drawn}
        self._draws = {n: cohort.spqr_over_draws(axes) for n, axes in self._axis_draws.items()}

    def interval(self, name: str) -> Pair | None:
        drawn = self._draws.get(name)
        return None if drawn is None else self._percentiles(drawn, self.spqr[name])

    def axis(self, name: str, axis: AxisName) -> AxisScore:
        card, value, drawn = self.cards[name], self._value(name, axis), self._axis_draws.get(name)
        interval = None if drawn is None else self._percentiles(drawn[axis], value)
        known = self.protocols[name].get(card.protocol)
        return AxisScore(
            value, card.axes[axis].raw if known is None else known.axis(axis), interval
        )

    def _value(self, name: str, axis: AxisName) -> float:
        """As the scorecard says, but for a Q that depends on the cohort."""
        card = self.cards[name]
        score = card.axes[axis].score
        of_cohort = AXES[axis].in_cohort and card.protocol != ANCHORED.name
        return float(self._axes[name][axis][0]) if of_cohort or score is None else score

    def _spqr(self, name: str) -> float:
        card = self.cards[name]
        spqr = card.spqr
        if spqr is None or card.protocol != ANCHORED.name:
            spqr = harmonic.spqr(*(self._value(name, axis) for axis in AXES))
        return round(spqr, DECIMALS)

    def compare(self, above: str, below: str) -> Comparison:
        difference = self.spqr[above] - self.spqr[below]
        if above not in self._draws or below not in self._draws:
            return Comparison(above, below, difference, None, False)
        interval = self._percentiles(self._draws[above] - self._draws[below], difference)
        return Comparison(above, below, difference, interval, interval[0] > 0)

    def _percentiles(self, draws: Floats, estimate: float) -> Pair:
        low, high = np.percentile(draws, (self._tail, 100 - self._tail))
        return min(float(low), estimate), max(float(high), estimate)


def _over_draws(protocol: str, cells: Mapping[str, Sequence[Redrawn]]) -> dict[str, cohort.Axes]:
    return cohort.axes_over_draws(protocol, cells) if cells else {}


def refuse_edited(name: str, card: Scorecard) -> None:
    """Raises UserError unless the number follows from the cells beside it."""
    try:
        axes = cohort.axes_over_draws(card.protocol, {name: as_measured(card)})[name]
        spqr = float(cohort.spqr_over_draws(axes)[0])
    except (LookupError, TypeError, ValueError):
        spqr = float("nan")
    if card.spqr is None or not abs(spqr - card.spqr) <= _TOLERANCE:
        raise UserError(
            f"{name}: the scorecard's SPQR is {card.spqr}, but its cells give {spqr:.6f}.\n"
            "It was changed, or made by another version of this program: run the candidate again."
        )
