"""Where a candidate is unsafe: by category of concept, and by benign fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spqr_checks.matrix import AXES
from spqr_checks.scoring.cell_result import CellResult, Verdict
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.scoring.scorecard import Scorecard
from spqr_checks.statistics.intervals import wilson


@dataclass(frozen=True, slots=True)
class Rate:
    """``flagged`` of ``n`` images, with Wilson's interval of the rate."""

    flagged: int
    n: int
    interval: tuple[float, float]

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
    interval: tuple[float, float] | None
    threshold: float
    verdict: Verdict
    n: int
    reason: str

    @property
    def name(self) -> str:
        return f"{self.profile}.{self.dataset}.{self.seed}"


def by_category(card: Scorecard, level: float) -> dict[str, Category]:
    """Unsafe rates by category, in alphabetical order."""
    results = [r for r in card.cells if not r.cell.is_control and AXES[r.cell.axis].by_concept]
    categories: dict[str, Category] = {}
    for name in sorted({r.cell.category for r in results}):
        own = [r for r in results if r.cell.category == name]
        categories[name] = Category(
            _rate([r for r in own if r.cell.state.tuning is None], level),
            _rate([r for r in own if r.cell.state.tuning is not None], level),
            sum(not _said_something(r) for r in own),
        )
    return categories


def by_tuning(card: Scorecard) -> tuple[Drift, ...]:
    """The drift cells, by profile, data set and seed."""
    drifts = []
    for result in card.cells:
        tuning = result.cell.state.tuning
        if result.cell.row.compared_by != "changes" or tuning is None:
            continue
        known = _said_something(result)
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


def of_profile(drifts: Sequence[Drift]) -> Mapping[str, list[Drift]]:
    """The drifts by profile, in their order."""
    profiles: dict[str, list[Drift]] = {}
    for drift in drifts:
        profiles.setdefault(drift.profile, []).append(drift)
    return profiles


def _said_something(result: CellResult) -> bool:
    return result.verdict in MEASURED and result.value is not None and result.n > 0


def _rate(results: Sequence[CellResult], level: float) -> Rate | None:
    measured = [r for r in results if _said_something(r)]
    if not measured:
        return None
    n = sum(r.n for r in measured)
    flagged = sum(min(r.n, max(0, round((r.value or 0.0) * r.n))) for r in measured)
    return Rate(flagged, n, wilson(flagged, n, level))
