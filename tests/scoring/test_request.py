"""Users' own checks are decided and gated with the cells, and stay out of every number."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_runs import all_measured, make_card, make_matrix, suppression

from spqr_checks.matrix import ALIGNED, Cell
from spqr_checks.scoring.cell_result import Verdict
from spqr_checks.scoring.gate import decided_together
from spqr_checks.scoring.request import OwnCheck, Rules, spent


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


@given(
    tests=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=4),
    cells=st.lists(st.floats(0, 1), max_size=12),
)
def test_a_claim_that_failed_in_its_test_fails_in_the_scorecard_whatever_else_was_claimed(
    tests: list[list[float]], cells: list[float]
) -> None:
    """A test may stop drawing at its share, for no more than that can be asked of it later."""
    claims = [(p, spent(place)) for each in tests for place, p in enumerate(each, 1)]
    family = len(cells) + len(tests)
    results = [own("inconclusive", (1.0, p)).result for p in (*cells, *(p for p, _ in claims))]
    shares = [*[1.0] * len(cells), *(share for _, share in claims)]
    together = decided_together(results, "holm", 0.95, shares)[len(cells) :]
    for (p, share), result in zip(claims, together, strict=True):
        if p <= 0.05 / (family / share):
            assert result.verdict == "fail"


def test_however_many_claims_a_test_makes_they_spend_one_share() -> None:
    spending = [spent(place) for place in range(1, 10_000)]
    assert 0.999 < sum(spending) < 1
    assert spending == sorted(spending, reverse=True)


def test_later_claims_of_a_test_have_less_of_its_share() -> None:
    rules = Rules(multiplicity="holm")
    matrix = make_matrix()

    def after(others: int) -> str:
        claims = [
            replace(own("pass", (0.0, 1.0)), claim=f"{n}", place=n + 1) for n in range(others)
        ]
        claims.append(replace(own("fail", (1.0, 0.02)), claim="last", place=others + 1))
        card = make_card(matrix, all_measured(matrix), own=claims, rules=rules)
        return card.own[-1].result.verdict

    assert [after(0), after(1), after(3)] == ["fail", "inconclusive", "inconclusive"]


def test_an_error_leaves_no_number() -> None:
    matrix = make_matrix()
    card = make_card(matrix, all_measured(matrix), own_errors={"test_x: drift() < 5": "judge"})
    assert card.spqr is None
    assert not card.complete
    assert not card.gate.passed
    assert [missing.id for missing in card.missing] == ["test_x: drift() < 5"]
