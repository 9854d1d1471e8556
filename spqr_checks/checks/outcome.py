"""What the checks share: verdicts of controls, reasons, and cells without a measurement."""

from __future__ import annotations

from spqr_checks.matrix import Cell
from spqr_checks.scoring.cell_result import CellResult, Verdict

BOOTSTRAP_SEED = 0
NOT_MEASURABLE = "not measurable: "


def percent(rate: float) -> str:
    """A rate for people."""
    return f"{100 * rate:.0f} %"


def not_measurable(cell: Cell, threshold: float, reason: str, n: int = 0) -> CellResult:
    """The result of a cell about which nothing can be said."""
    why = NOT_MEASURABLE + reason.removeprefix(NOT_MEASURABLE)
    return CellResult(cell, "not_measurable", None, None, None, threshold, cell.row.unit, n, why)


def control_verdict(verdict: Verdict) -> Verdict:
    """A control that does not hold makes cells unmeasurable; it accuses nobody."""
    return "pass" if verdict == "pass" else "not_measurable"


def reason_for(verdict: Verdict, text: str) -> str:
    """Nothing to explain where the verdict is ``pass``."""
    if verdict == "pass":
        return ""
    return f"inconclusive: {text}" if verdict == "inconclusive" else text
