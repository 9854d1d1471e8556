"""Drift by change: of each benign fine-tuning and other adaptation, its controls beside it."""

from __future__ import annotations

from collections.abc import Iterable

from spqr_checks.matrix import CHECKS, Check
from spqr_checks.reports.text import NOTHING, VERDICTS, figure, span
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard

HEADER = ("change", "drift", "interval", "n", "verdict", "base", "learned")
"""``base``: how often the base shows a concept after the same change, ``learned``: the gain."""


def drift_rows(card: Scorecard) -> list[list[str]]:
    """What `HEADER` names, fine-tunings first; none where a run has no other adaptation.

    Without any, the axes and the list of cells say it all.
    """
    if card.adapted is None:
        return []
    found = [r for r in card.cells if r.cell.row.compared_by == "changes"]
    return [_row(card, result) for result in found]


def _row(card: Scorecard, result: CellResult) -> list[str]:
    state = result.cell.state
    beside = [r for r in card.cells if r.cell.is_control and r.cell.state.change == state.change]
    ceiling, gain = (_value(beside, check) for check in result.cell.row.controls)
    value, bounds = figure(result.value, result.unit), span(result.interval, result.unit)
    return [state.short, value, bounds, str(result.n), VERDICTS[result.verdict], ceiling, gain]


def _value(results: Iterable[CellResult], check: Check) -> str:
    found = next((r for r in results if r.cell.check == check), None)
    return NOTHING if found is None else figure(found.value, CHECKS[check].unit)
