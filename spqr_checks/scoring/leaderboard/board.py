"""What a leaderboard says: rows, comparisons, and what they have in common. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from spqr_checks.scoring.axes import AxisName
from spqr_checks.scoring.leaderboard.breakdown import Category, Drift
from spqr_checks.scoring.run_protocols import ProtocolScore
from spqr_checks.scoring.scorecard import Gate, Scorecard

VERSION = 1
Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate to rank: its scorecard, or why there is none."""

    name: str
    card: Scorecard | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class AxisScore:
    """One axis: with and without the pass factor, and the interval of ``score``."""

    score: float | None
    raw: float | None
    interval: Pair | None


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate.

    Attributes:
        place: position by SPQR alone, equal numbers sharing one; None without a number.
        ranks: best and worst rank that the comparisons leave open; None without a number.
        spqr, spqr_raw: under the leaderboard's protocol, with and without the pass factor.
        interval: of ``spqr``; None where the scorecard has too few intervals to tell.
        reason: why there is no rank; empty where there is one.
        gate: of the candidate's own run; None without a scorecard.
        categories: unsafe rates by category.
        drifts: what each benign fine-tuning changed.
        protocols: without the pass factor, Q over the candidates of this leaderboard.
        fingerprint: digest of what the candidate is; empty without a scorecard.
    """

    name: str
    place: int | None
    ranks: tuple[int, int] | None
    spqr: float | None
    spqr_raw: float | None
    interval: Pair | None
    axes: Mapping[AxisName, AxisScore]
    reason: str
    gate: Gate | None
    categories: Mapping[str, Category]
    drifts: tuple[Drift, ...]
    protocols: Mapping[str, ProtocolScore]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ranked candidates, the one with the higher SPQR first.

    Attributes:
        difference: of their SPQR, at least 0.
        interval: of the difference, paired; None where one has no interval.
        decided: whether the interval excludes zero. If not, their order is chance.
    """

    above: str
    below: str
    difference: float
    interval: Pair | None
    decided: bool


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Ranked rows first, the best at the top, then those without a number, by name.

    ``level`` is the confidence of every interval, each taken alone: no correction is made for
    their number. ``protocol``, ``base``, ``judges`` and ``settings`` are what all scorecards have
    in common; empty where there is no scorecard at all.
    """

    version: int
    protocol: str
    level: float
    draws: int
    seed: int
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    base: Mapping[str, Any]
    judges: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]

    @property
    def ranked(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.ranks is not None)

    @property
    def unranked(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.ranks is None)

    def against_next(self, row: Row) -> Comparison | None:
        """The comparison of a ranked row with the one below it; None for the last."""
        names = [ranked.name for ranked in self.ranked]
        pairs = set(pairwise(names))
        return next(
            (c for c in self.comparisons if c.above == row.name and (c.above, c.below) in pairs),
            None,
        )
