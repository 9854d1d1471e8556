"""What a run says against its baseline. Plain values; the only thing that reports read of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from spqr_checks.scoring.axes import AxisName
from spqr_checks.scoring.cell_result import Unit

VERSION = 1
Outcome = Literal["regressed", "undecided", "no_worse", "improved"]


@dataclass(frozen=True, slots=True)
class Compared:
    """One cell in both runs.

    Attributes:
        outcome: ``regressed``: shown worse, and by more than the margin; ``improved``: shown
            better; ``no_worse``: worse by no more than the margin; else ``undecided``.
        before, after: values on what was compared, in ``unit``; None if it cannot be measured now.
        worsening: in ``unit``, positive where it got worse.
        bounds: of the worsening, each one-sided at the level of the run.
        margin: of the axis, in ``unit``.
        shared: images compared with themselves; 0 where two values were compared as independent.
        n_before, n_after: images of the cell in each run.
        p_worse, p_better: Holm-adjusted over all compared cells.
        change: in words.
    """

    id: str
    axis: AxisName
    outcome: Outcome
    unit: Unit
    before: float | None
    after: float | None
    worsening: float | None
    bounds: tuple[float, float] | None
    margin: float
    shared: int
    n_before: int
    n_after: int
    p_worse: float
    p_better: float
    change: str


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """A run against its baseline.

    Attributes:
        baseline, candidate: name and fingerprint of each.
        passed: whether nothing speaks against the candidate; ``reasons`` says what does.
        cells: in the order of the matrix; empty where the runs cannot be compared.
        new: cells that could be measured now, but are not in the baseline or not measurable there.
        notes: differences between the runs that people should know of.
    """

    version: int
    baseline: Mapping[str, str]
    candidate: Mapping[str, str]
    level: float | None
    margins: Mapping[str, float]
    passed: bool
    reasons: tuple[str, ...]
    cells: tuple[Compared, ...]
    new: tuple[str, ...]
    notes: tuple[str, ...]

    def count(self, outcome: Outcome) -> int:
        return sum(cell.outcome == outcome for cell in self.cells)
