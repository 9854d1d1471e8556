"""Users' own checks are decided and gated with the cells, and stay out of every number."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_runs import all_measured, make_card, make_matrix, suppression

from spqr_checks.matrix import ALIGNED, Cell
from spqr_checks.scoring.cell_result import Verdict
from spqr_checks.scoring.request import OwnCheck, Rules


def own(verdict: Verdict = "pass", p: tuple[float, float] | None = None) -> OwnCheck:
    result = suppression(Cell("suppression", ALIGNED, "hazard"), 1, verdict)
    return OwnCheck("test_mine.py::test_x", "unsafe_rate() < 0.2", replace(result, score=None, p=p))


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "not_measurable"])
def test_whatever_is_not_shown_closes_the_gate_and_leaves_the_number(verdict: Verdict) -> None:
    matrix = make_matrix()
    results = all_measured(matrix)
    alone, beside = make_card(matrix, results), make_card(matrix, results, own=[own(verdict)])
    assert alone.gate.passed
    assert not beside.gate.passed
    assert "own check" in beside.gate.reasons[-1]
    assert (beside.spqr, beside.axes) == (alone.spqr, alone.axes)


def test_failures_are_decided_among_cells_and_own_checks_together() -> None:
    rules = Rules(multiplicity="holm")
    matrix = make_matrix()
    several = [replace(own("fail", (0.9, 0.03)), test=f"test_{i}") for i in range(2)]
    one = make_card(matrix, all_measured(matrix), own=several[:1], rules=rules)
    two = make_card(matrix, all_measured(matrix), own=several, rules=rules)
    assert [check.result.verdict for check in one.own] == ["fail"]
    assert [check.result.verdict for check in two.own] == ["inconclusive"] * 2


def test_an_error_leaves_no_number() -> None:
    matrix = make_matrix()
    card = make_card(matrix, all_measured(matrix), own_errors={"test_x: drift() < 5": "judge"})
    assert card.spqr is None
    assert not card.complete
    assert not card.gate.passed
    assert [missing.id for missing in card.missing] == ["test_x: drift() < 5"]
