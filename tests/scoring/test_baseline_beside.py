"""A run against its baseline: cells under attack and adaptation, which lie beside the axes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from boards import TUNINGS
from resampled import cell, compared, ids, template, with_flags, with_settings, worse

from spqr_checks.matrix import Adaptation, State
from spqr_checks.scoring.scorecard import Scorecard, UnderAttack

SMALL = template(48, ("hazard", "bolt"))
S_HAZARD = "S-hazard-en-photo-aligned"


def with_attack(of: Scorecard, flagged: int, asserted: bool = False) -> Scorecard:
    """With every suppression cell under attack as well, of which so many images are flagged."""
    cells = []
    for result in (cell(of, i) for i in ids(of)):
        flags = [number < flagged for number in range(len(result.images))]
        under = replace(result.cell, check="under_attack", attack="mma")
        cells.append(with_flags(replace(result, cell=under), flags))
    nothing = of.axes["S"]
    return replace(
        of,
        cells=(*of.cells, *cells),
        attacked=UnderAttack(("mma",), asserted, nothing, nothing),
    )


def test_attacks_change_nothing_of_the_cells_that_are_not_attacked() -> None:
    before, after = SMALL, worse(SMALL, S_HAZARD, 12)
    plain = compared(before, after)
    both = compared(with_attack(before, 0), with_attack(after, 40))
    beside = {c.id for c in both.cells if ".mma-" in c.id}
    assert tuple(c for c in both.cells if c.id not in beside) == plain.cells
    assert both.reasons == plain.reasons
    assert {c.outcome for c in both.cells if c.id in beside} == {"regressed"}


def test_attacked_cells_close_the_gate_where_they_are_asserted() -> None:
    asserted = compared(with_attack(SMALL, 0), with_attack(SMALL, 40, asserted=True))
    assert {r.partition(" regressed")[0] for r in asserted.reasons} == {
        c.id for c in asserted.cells if ".mma-" in c.id
    }
    assert compared(with_attack(SMALL, 0), with_attack(SMALL, 40)).passed
    undecided = with_attack(SMALL, 2)
    assert compared(undecided, undecided, "fail").reasons == compared(SMALL, SMALL, "fail").reasons


def test_other_attacks_are_left_out_and_said_and_all_else_is_compared() -> None:
    one, other = with_attack(SMALL, 0), with_attack(SMALL, 40)
    changed = with_settings(other, attack={"mma": {"steps": 9}})
    comparison = compared(one, changed)
    assert comparison.cells == compared(SMALL, SMALL).cells
    assert any(
        note.startswith("cells under attack are not compared: ") for note in comparison.notes
    )
    without = compared(one, SMALL)
    assert without.cells == compared(SMALL, SMALL).cells


FEW = State("aligned", None, Adaptation("few-step"))


def adapted(of: Scorecard, points: float, width: float = 2.0) -> Scorecard:
    """With a drift under an adaptation."""
    drift = cell(of, f"R-all-all-all-{TUNINGS[0].name}")
    made = replace(
        drift,
        cell=replace(drift.cell, state=FEW),
        value=points,
        interval=(points - width, points + width),
        images=(),
    )
    return replace(of, cells=(*of.cells, made))


def test_drift_under_an_adaptation_is_compared_by_its_value() -> None:
    where = "R-all-all-all-few-step"
    same = compared(adapted(SMALL, 3.0), adapted(SMALL, 3.0))
    assert where in [c.id for c in same.cells]
    assert same.passed
    found = {c.id: c for c in compared(adapted(SMALL, 3.0), adapted(SMALL, 30.0)).cells}[where]
    assert (found.outcome, found.shared) == ("regressed", 0)
    assert found.worsening == pytest.approx(27)
    assert "drift +3.0 -> +30.0 points" in found.change
    better = {c.id: c for c in compared(adapted(SMALL, 30.0), adapted(SMALL, 3.0)).cells}[where]
    assert better.outcome == "improved"
    wide = {c.id: c for c in compared(adapted(SMALL, 3.0, 30), adapted(SMALL, 4.0, 30)).cells}
    assert wide[where].outcome == "undecided"


def test_an_adaptation_with_other_options_is_another_one() -> None:
    other = with_settings(adapted(SMALL, 3.0), adaptation={"few-step": {"steps": 2}})
    comparison = compared(adapted(SMALL, 3.0), other)
    assert "cannot be compared: setting adaptation" in comparison.reasons[0]
