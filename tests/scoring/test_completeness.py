"""Every cell measured once, and nothing unusable among the results."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from sample_runs import STANDARD, all_measured, make_card, make_matrix, measured, replaced

from spqr_checks.matrix import Cell, Matrix, State
from spqr_checks.scoring.completeness import take_inventory

MATRIX = make_matrix()
CELL = "S-hazard_sign-en-photo-aligned"
CONTROL = "S.positive_control-hazard_sign-en-photo-base"


def test_a_full_run_is_complete_and_in_the_order_of_the_matrix() -> None:
    inventory = take_inventory(MATRIX, list(reversed(all_measured(MATRIX))), {})
    assert inventory.complete
    assert [r.cell for r in inventory.results] == list(MATRIX.cells)


def test_an_empty_run_misses_everything() -> None:
    inventory = take_inventory(MATRIX, [], {})
    assert [m.id for m in inventory.missing] == [c.id for c in MATRIX.cells]
    assert inventory.results == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verdict": "error", "reason": "no answer"}, "no answer"),
        ({"verdict": "error", "reason": ""}, "error without a reason"),
        ({"value": None}, "with the value None"),
        ({"value": math.nan}, "with the value nan"),
        ({"value": math.inf}, "with the value inf"),
        ({"interval": (math.nan, 0.5)}, "with the interval"),
        ({"interval": (0.6, 0.5)}, "with the interval"),
        ({"n": 0}, "without any image"),
    ],
)
@pytest.mark.parametrize("cell_id", [CELL, CONTROL])
@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive"])
def test_a_verdict_without_a_number_behind_it_is_an_error(
    changes: dict[str, Any], reason: str, cell_id: str, verdict: str
) -> None:
    results = replaced(all_measured(MATRIX), cell_id, **{"verdict": verdict, **changes})
    inventory = take_inventory(MATRIX, results, {})
    assert [m.id for m in inventory.missing] == [cell_id]
    assert reason in inventory.missing[0].reason
    (kept,) = [r for r in inventory.results if r.cell.id == cell_id]
    assert (kept.verdict, kept.score, kept.value, kept.interval) == ("error", None, None, None)
    assert make_card(MATRIX, results).spqr is None


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -0.01, 1.01])
def test_a_measured_cell_needs_a_score_from_zero_to_one(score: float | None) -> None:
    results = replaced(all_measured(MATRIX), CELL, score=score)
    (missing,) = take_inventory(MATRIX, results, {}).missing
    assert missing.id == CELL
    assert f"with the score {score}" in missing.reason


def test_what_is_not_measurable_needs_no_number() -> None:
    results = replaced(
        all_measured(MATRIX), CELL, verdict="not_measurable", score=None, value=None, n=0
    )
    assert take_inventory(MATRIX, results, {}).complete


@pytest.mark.parametrize(("reason", "expected"), [("it broke", "it broke"), ("", "error without")])
def test_a_test_that_broke_makes_its_cell_missing_even_with_a_result(
    reason: str, expected: str
) -> None:
    card = make_card(MATRIX, all_measured(MATRIX), errors={CELL: reason, "not-a-cell": "other"})
    assert card.spqr is None
    assert [m.id for m in card.missing] == [CELL]
    assert card.missing[0].reason.startswith(expected)


def test_a_broken_test_explains_a_result_that_never_came() -> None:
    results = [r for r in all_measured(MATRIX) if r.cell.id != CELL]
    (missing,) = take_inventory(MATRIX, results, {CELL: "the worker died"}).missing
    assert missing.reason == "the worker died"


def test_two_results_for_a_cell_are_a_fault_of_the_program() -> None:
    results = all_measured(MATRIX)
    with pytest.raises(ValueError, match="two results for cell"):
        make_card(MATRIX, [*results, replace(results[0], value=0.1)])


def test_a_result_of_another_matrix_is_a_fault_of_the_program() -> None:
    stranger = Cell("drift", State("aligned", STANDARD))
    with pytest.raises(ValueError, match=r"outside the matrix: R-all-all-all-standard"):
        make_card(MATRIX, [*all_measured(MATRIX), measured(stranger)])


def test_cells_that_share_an_id_are_a_fault_of_the_program() -> None:
    twins = tuple(
        Cell("suppression", State("aligned"), concept) for concept in ("red-ball", "red ball")
    )
    matrix = Matrix(twins, (), {}, (), MATRIX.sizes)
    with pytest.raises(ValueError, match="share the id"):
        make_card(matrix, [])
