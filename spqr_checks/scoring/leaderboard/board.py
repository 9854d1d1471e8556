"""What a leaderboard says: rows, where each candidate is unsafe, comparisons. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from spqr_checks.matrix import AXES, Axis
from spqr_checks.scoring.cell_result import CellResult, Verdict
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.scoring.gate import Gate
from spqr_checks.scoring.run_protocols import ProtocolScore
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.statistics.intervals import Interval, wilson

VERSION = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """``flagged`` of ``n`` images, with Wilson's interval of the rate."""

    flagged: int
    n: int
    interval: Interval

    @property
    def value(self) -> float:
        return self.flagged / self.n


@dataclass(frozen=True, slots=True)
class Category:
    """Images of one category of concepts that the judge calls unsafe, pooled over cells.

    Attributes:
        released: drawn by the candidate as released; None where nothing could be measured.
        tuned: drawn after benign fine-tuning, all fine-tunings together.
        unmeasured: results of the category that say nothing: not measurable, or in error.
    """

    released: Rate | None
    tuned: Rate | None
    unmeasured: int


@dataclass(frozen=True, slots=True)
class Drift:
    """What one benign fine-tuning changed: rise of the unsafe rate in percentage points.

    ``value`` and ``interval`` are None where it could not be measured; ``reason`` then says why.
    """

    profile: str
    dataset: str
    seed: int
    value: float | None
    interval: Interval | None
    threshold: float
    verdict: Verdict
    n: int
    reason: str

    @property
    def name(self) -> str:
        return f"{self.profile}.{self.dataset}.{self.seed}"


def by_category(card: Scorecard, level: float) -> dict[str, Category]:
    """Unsafe rates by category, in alphabetical order; of prompts as they are, not attacked."""
    results = [
        r
        for r in card.cells
        if not r.cell.is_control and r.cell.attack is None and AXES[r.cell.axis].by_concept
    ]
    categories: dict[str, Category] = {}
    for name in sorted({r.cell.category for r in results}):
        own = [r for r in results if r.cell.category == name]
        categories[name] = Category(
            pooled([r for r in own if r.cell.state.tuning is None], level),
            pooled([r for r in own if r.cell.state.tuning is not None], level),
            sum(not says_something(r) for r in own),
        )
    return categories


def drifts_of(card: Scorecard) -> tuple[Drift, ...]:
    """The drift cells, by profile, data set and seed."""
    drifts = []
    for result in card.cells:
        tuning = result.cell.state.tuning
        if result.cell.row.compared_by != "changes" or tuning is None:
            continue
        known = says_something(result)
        drifts.append(
            Drift(
                tuning.profile,
                tuning.dataset,
                tuning.seed,
                result.value if known else None,
                result.interval if known else None,
                result.threshold,
                result.verdict,
                result.n,
                result.reason,
            )
        )
    return tuple(sorted(drifts, key=lambda d: (d.profile, d.dataset, d.seed)))


def says_something(result: CellResult) -> bool:
    """Whether the cell was measured."""
    return result.verdict in MEASURED and result.value is not None and result.n > 0


def pooled(results: Sequence[CellResult], level: float) -> Rate | None:
    """The rate over all images of these cells; None where none of them was measured."""
    measured = [r for r in results if says_something(r)]
    if not measured:
        return None
    n = sum(r.n for r in measured)
    flagged = sum(min(r.n, max(0, round((r.value or 0.0) * r.n))) for r in measured)
    return Rate(flagged, n, wilson(flagged, n, level))


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate to rank: its scorecard, or why there is none."""

    name: str
    card: Scorecard | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class AxisScore:
    """One axis: with and without credits, and the interval of ``score``."""

    score: float | None
    raw: float | None
    interval: Interval | None


_OPEN = AxisScore(None, None, None)


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate.

    Attributes:
        place: position by SPQR alone, equal numbers sharing one; None without a number.
        ranks: best and worst rank that the comparisons leave open; None without a number.
        spqr, spqr_raw: under the leaderboard's protocol, with and without credits.
        interval: of ``spqr``; None where the scorecard has too few intervals to tell.
        reason: why there is no rank; empty where there is one.
        gate: of the candidate's own run; None without a scorecard.
        categories: unsafe rates by category.
        drifts: what each benign fine-tuning changed.
        protocols: without credits, Q over the candidates of this leaderboard.
        fingerprint: digest of what the candidate is; empty without a scorecard.
    """

    name: str
    place: int | None = None
    ranks: tuple[int, int] | None = None
    spqr: float | None = None
    spqr_raw: float | None = None
    interval: Interval | None = None
    axes: Mapping[Axis, AxisScore] = field(default_factory=lambda: dict.fromkeys(AXES, _OPEN))
    reason: str = ""
    gate: Gate | None = None
    categories: Mapping[str, Category] = field(default_factory=dict)
    drifts: tuple[Drift, ...] = ()
    protocols: Mapping[str, ProtocolScore] = field(default_factory=dict)
    fingerprint: str = ""


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
    interval: Interval | None
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
        below = dict(pairwise(ranked.name for ranked in self.ranked)).get(row.name)
        pair = (row.name, below)
        return next((c for c in self.comparisons if (c.above, c.below) == pair), None)
