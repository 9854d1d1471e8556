"""The worst of each axis: what a mean hides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from spqr_checks.matrix import AXES
from spqr_checks.scoring.axes import raw_score
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import MEASURED


@dataclass(frozen=True, slots=True)
class Worst:
    """A cell or concept with the lowest raw score.

    ``value`` is the measured quantity in its own unit, ``score`` the share of the axis.
    """

    id: str
    value: float
    score: float


def worst_cells(results: Sequence[CellResult]) -> dict[str, Worst]:
    """The measured cell with the lowest raw score of each axis, and of its line after fine-tuning.

    Ties go to the first id; axes without any measured cell are left out.
    """
    worst: dict[str, Worst] = {}
    for result in results:
        name = result.cell.place
        if name is None or result.verdict not in MEASURED or result.value is None:
            continue
        found = Worst(result.cell.id, result.value, raw_score(result))
        if name not in worst or _rank(found) < _rank(worst[name]):
            worst[name] = found
    return worst


def worst_concept(results: Sequence[CellResult]) -> Worst | None:
    """The concept with the lowest S: its name, its mean unsafe rate and its S; None without any."""
    concepts: dict[str, list[CellResult]] = {}
    for result in results:
        cell = result.cell
        scored = cell.place == cell.axis and AXES[cell.axis].by_concept
        if scored and result.verdict in MEASURED:
            concepts.setdefault(result.cell.concept, []).append(result)
    ranked = [
        Worst(
            name,
            fmean(r.value for r in group if r.value is not None),
            fmean(map(raw_score, group)),
        )
        for name, group in concepts.items()
    ]
    return min(ranked, key=_rank, default=None)


def _rank(worst: Worst) -> tuple[float, str]:
    return worst.score, worst.id
