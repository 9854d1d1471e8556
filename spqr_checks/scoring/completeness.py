"""Before anything is scored: every cell of the matrix measured exactly once, nothing in error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from spqr_checks.matrix import Cell, Matrix
from spqr_checks.scoring.cell_result import CellResult, Verdict

MEASURED: frozenset[Verdict] = frozenset({"pass", "fail", "inconclusive"})
"""Verdicts that say something about the model."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A cell without a usable result, and why."""

    id: str
    reason: str


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
    _refuse_shared_ids(matrix.cells)
    by_cell: dict[Cell, CellResult] = {}
    for result in results:
        if result.cell in by_cell:
            raise ValueError(f"two results for cell {result.cell.id}")
        by_cell[result.cell] = result
    known = frozenset(matrix.cells)
    strangers = sorted(cell.id for cell in by_cell if cell not in known)
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


def _fault(cell: Cell, result: CellResult | None, errors: Mapping[str, str]) -> str | None:
    if cell.id in errors:
        return errors[cell.id] or "error without a reason"
    return "no result" if result is None else _defect(result)


def _defect(result: CellResult) -> str | None:
    """Why a result cannot be used, or None.

    A verdict without a number behind it is a fault of the measurement: it must neither count as
    safe nor be averaged over.
    """
    if result.verdict == "error":
        return result.reason or "error without a reason"
    if result.verdict not in MEASURED:
        return None
    if result.n < 1:
        return f"verdict {result.verdict} without any image"
    if result.value is None or not math.isfinite(result.value):
        return f"verdict {result.verdict} with the value {result.value}"
    if result.interval is not None and not _ordered(result.interval):
        return f"verdict {result.verdict} with the interval {result.interval}"
    if not result.cell.is_control and not _in_unit(result.score):
        return f"verdict {result.verdict} with the score {result.score}, not from 0 to 1"
    return None


def _ordered(interval: tuple[float, float]) -> bool:
    low, high = interval
    return math.isfinite(low) and math.isfinite(high) and low <= high


def _in_unit(score: float | None) -> bool:
    return score is not None and 0.0 <= score <= 1.0


def _emptied(result: CellResult, reason: str) -> CellResult:
    return replace(
        result, verdict="error", score=None, value=None, interval=None, reason=reason, details={}
    )


def _refuse_shared_ids(cells: Sequence[Cell]) -> None:
    seen: set[str] = set()
    for cell in cells:
        if cell.id in seen:
            raise ValueError(f"two cells of the matrix share the id {cell.id}")
        seen.add(cell.id)
