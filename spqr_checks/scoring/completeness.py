"""Before anything is scored: every cell of the matrix measured exactly once, nothing in error."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from spqr_checks.matrix import Cell, Matrix
from spqr_checks.scoring.cell_result import CellResult, Verdict

MEASURED: frozenset[Verdict] = frozenset({"pass", "fail", "inconclusive"})
"""Verdicts that say something about the model."""

NOT_SELECTED = "not selected"
STOPPED = "not begun when -x or --maxfail ended the run"
"""Why a cell has no result where a run was told to leave it out: the same run would again."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A cell without a usable result, and why."""

    id: str
    reason: str


def by_cause(found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Reason → the ids that have it, of pairs of id and reason; the most common first."""
    causes: dict[str, list[str]] = {}
    for name, reason in found:
        causes.setdefault(reason, []).append(name)
    return dict(sorted(causes.items(), key=lambda cause: -len(cause[1])))


@dataclass(frozen=True, slots=True)
class Inventory:
    """Results in the order of the matrix, and what is missing among them.

    Results that cannot be used are listed in ``missing`` and stand in ``results`` with the verdict
    ``error`` and without numbers; cells without any result are in ``missing`` alone.
    """

    results: tuple[CellResult, ...]
    missing: tuple[Missing, ...]

    @property
    def complete(self) -> bool:
        return not self.missing


def take_inventory(
    matrix: Matrix, results: Sequence[CellResult], errors: Mapping[str, str]
) -> Inventory:
    """Puts results beside the cells they belong to.

    Args:
        errors: cell id → why its test ended in an error. Such a cell is missing even if it has a
            result; ids outside the matrix are ignored.

    Raises:
        ValueError: two cells share an id, a cell has two results, or a result belongs to no cell
            of the matrix. These are faults of the program, never of the model.
    """
    if shared := _twice(cell.id for cell in matrix.cells):
        raise ValueError(f"two cells of the matrix share the id {shared}")
    if double := _twice(result.cell.id for result in results):
        raise ValueError(f"two results for cell {double}")
    by_cell = {result.cell: result for result in results}
    strangers = sorted(cell.id for cell in by_cell.keys() - set(matrix.cells))
    if strangers:
        raise ValueError(f"results for cells outside the matrix: {', '.join(strangers)}")
    kept: list[CellResult] = []
    missing: list[Missing] = []
    for cell in matrix.cells:
        found = by_cell.get(cell)
        fault = _fault(cell, found, errors)
        if fault is not None:
            missing.append(Missing(cell.id, fault))
        if found is not None:
            kept.append(found if fault is None else _emptied(found, fault))
    return Inventory(tuple(kept), tuple(missing))


def _twice(ids: Iterable[str]) -> str | None:
    return next((name for name, times in Counter(ids).items() if times > 1), None)


def _fault(cell: Cell, result: CellResult | None, errors: Mapping[str, str]) -> str | None:
    """Why a cell has no result that can be used, or None.

    A verdict without a number behind it is a fault of the measurement: it must neither count as
    safe nor be averaged over.
    """
    if cell.id in errors:
        return errors[cell.id] or "error without a reason"
    if result is None:
        return "no result"
    if result.verdict == "error":
        return result.reason or "error without a reason"
    if result.verdict not in MEASURED:
        return None
    what = f"verdict {result.verdict}"
    if result.n < 1:
        return f"{what} without any image"
    if result.value is None or not math.isfinite(result.value):
        return f"{what} with the value {result.value}"
    low, high = result.interval or (0.0, 0.0)
    if not -math.inf < low <= high < math.inf:
        return f"{what} with the interval {result.interval}"
    if not cell.is_control and (result.score is None or not 0.0 <= result.score <= 1.0):
        return f"{what} with the score {result.score}, not from 0 to 1"
    return None


def _emptied(result: CellResult, reason: str) -> CellResult:
    return replace(
        result, verdict="error", score=None, value=None, interval=None, reason=reason, details={}
    )
