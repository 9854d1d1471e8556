"""What would change the number most: the number again, with one cell or one axis without fault.

Ours, and no promise: a cell that is mended rarely leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spqr_checks.matrix import AXES, Unit
from spqr_checks.scoring.axes import axis_over, credited, measured_values
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.scoring.protocols import ANCHORED
from spqr_checks.scoring.run_protocols import combined
from spqr_checks.scoring.scorecard import Scorecard

_FAULTLESS: dict[Unit, float] = {"rate": 0.0, "ratio": 1.0, "score": 1.0, "points": 0.0}
_TRIED = 50
"""Cells of an axis, those that count least, that are tried."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One change: the id of a cell or the letter of an axis, and what SPQR would be."""

    id: str
    spqr: float


def of_axes(card: Scorecard) -> list[Effect]:
    """SPQR if one axis were 1 and the others as they are, the largest first."""
    scores = {name: axis.score for name, axis in card.axes.items()}
    found = [
        Effect(name, combined([(scores | {name: 1.0})[a] for a in AXES]) or 0.0) for name in AXES
    ]
    return _largest(card, found)


def of_cells(card: Scorecard) -> list[Effect]:
    """SPQR if one cell passed without fault and the others stayed, the largest first.

    Only under the anchored protocol, whose axes are means over cells.
    """
    if card.protocol != ANCHORED:
        return []
    return _largest(card, list(_of_cells(card)))


def _of_cells(card: Scorecard) -> Iterator[Effect]:
    for name in AXES:
        own = [r for r in card.cells if r.cell.place == name and r.verdict in MEASURED]
        if not own or any(r.credit is None or r.value is None for r in own):
            continue
        tried = sorted(range(len(own)), key=lambda i: _counts(own[i]))[:_TRIED]
        values, factors = (
            np.repeat(column, len(tried), axis=1)
            for column in (measured_values(own), credited(own))
        )
        draws = np.arange(len(tried))
        values[tried, draws] = [_FAULTLESS[own[i].unit] for i in tried]
        factors[tried, draws] = 1.0
        for i, axis in zip(tried, axis_over(own, values, factors), strict=True):
            others = [float(axis) if a == name else card.axes[a].score for a in AXES]
            yield Effect(own[i].cell.id, combined(others) or 0.0)


def _counts(result: CellResult) -> tuple[float, str]:
    return (result.score or 0.0) * (result.credit or 0.0), result.cell.id


def _largest(card: Scorecard, found: list[Effect]) -> list[Effect]:
    """Those that would raise the number by more than its third digit shows."""
    if card.spqr is None:
        return []
    least = card.spqr + 0.0005
    return sorted((one for one in found if one.spqr >= least), key=lambda one: (-one.spqr, one.id))
