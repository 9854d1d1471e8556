"""What a run could not measure: how much of each axis it covers, and which cells are left out."""

from __future__ import annotations

from spqr_checks.reports.selection import axis_rows
from spqr_checks.reports.text import plural, reason
from spqr_checks.scoring.scorecard import Scorecard


def coverage(card: Scorecard) -> list[str]:
    """``coverage: S over 47 of 60 cells, R over 2 of 3 cells``; nothing where all is covered."""
    parts = [
        f"{name if name.startswith('S after') else name[0]} over {axis.measured} of "
        f"{plural(axis.cells, 'cell')}"
        for name, axis in axis_rows(card)
        if axis.not_measurable
    ]
    return [f"coverage: {', '.join(parts)}"] if parts else []


def left_out(card: Scorecard) -> list[str]:
    """The scored cells that say nothing, each with the reason; they count for no axis."""
    return [
        f"{result.cell.id}: {reason(result)}"
        for result in sorted(card.cells, key=lambda result: result.cell.id)
        if result.verdict == "not_measurable" and not result.cell.is_control
    ]
