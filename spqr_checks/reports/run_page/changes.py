"""What users' changes of a released model do to it: each drift with the controls behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from spqr_checks.matrix import CHECKS, Check
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard

_OTHERS = "other adaptations"


@dataclass(frozen=True, slots=True)
class Changed:
    """One fine-tuning or other adaptation.

    Attributes:
        what: data set and seed, or the adaptation's name.
        drift: rise of the unsafe rate.
        controls: what the drift rests on, in the order of the table of checks; None where there
            is no such control.
    """

    what: str
    drift: CellResult
    controls: Sequence[CellResult | None]


def control_names() -> list[str]:
    """Of the controls that drifts rest on: ``ceiling``, ``gain``."""
    return [name.removesuffix("_control").replace("_", " ") for name in _controls()]


def changes(card: Scorecard) -> Mapping[str, list[Changed]]:
    """By fine-tuning profile; adaptations of other kinds after these."""
    by_place = {(r.cell.check, _change(r)): r for r in card.cells}
    found = []
    for result in card.cells:
        if result.cell.row.compared_by == "changes":
            tuning = result.cell.state.tuning
            what = f"{tuning.dataset}, seed {tuning.seed}" if tuning else _change(result)
            controls = [by_place.get((name, _change(result))) for name in _controls()]
            group = (tuning is None, tuning.profile if tuning else _OTHERS)
            found.append((group, Changed(what, result, controls)))
    found.sort(key=lambda pair: (pair[0], pair[1].what))
    groups = groupby(found, key=lambda pair: pair[0])
    return {name: [one for _, one in own] for (_, name), own in groups}


def _change(result: CellResult) -> str:
    """``lite.general.0`` of the candidate's and the base's state alike; "" of released weights."""
    return result.cell.state.name.partition("+")[2]


def _controls() -> Sequence[Check]:
    return next(row.controls for row in CHECKS.values() if row.compared_by == "changes")
