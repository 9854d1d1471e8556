"""Failures decided among all cells together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sample_runs import control, make_matrix, suppression

from spqr_checks.scoring.cell_result import CellResult, Verdict
from spqr_checks.scoring.multiple import decided_together

MATRIX = make_matrix()
CELLS = [cell for cell in MATRIX.cells if cell.check == "suppression"]


def with_p(number: int, p_missed: float, verdict: Verdict) -> CellResult:
    result = suppression(CELLS[number], 12, verdict)
    return replace(result, p=(1 - p_missed, p_missed))


def verdicts(results: tuple[CellResult, ...]) -> list[str]:
    return [result.verdict for result in results]


def test_a_failure_by_chance_alone_becomes_undecided() -> None:
    # 4 % is less than 5 %, but not for one cell of three
    results = [with_p(0, 0.04, "fail"), with_p(1, 0.6, "pass"), with_p(2, 0.9, "pass")]
    together = decided_together(results, "holm", 0.95)
    assert verdicts(together) == ["inconclusive", "pass", "pass"]
    assert together[0].reason.startswith("inconclusive: ")


def test_holm_fails_what_bonferroni_left_open() -> None:
    # 0.02 is above 0.05 / 3; once the first is rejected two are left, and 0.02 is below 0.05 / 2
    results = [
        with_p(0, 0.001, "fail"),
        with_p(1, 0.02, "inconclusive"),
        with_p(2, 0.9, "pass"),
    ]
    assert verdicts(decided_together(results, "holm", 0.95)) == ["fail", "fail", "pass"]


def test_each_cell_by_itself_keeps_its_verdict() -> None:
    results = [with_p(0, 0.04, "fail"), with_p(1, 0.6, "pass")]
    assert decided_together(results, "none", 0.95) == tuple(results)


def test_the_false_discovery_rate_is_kinder_than_holm() -> None:
    results = [with_p(i, p, "inconclusive") for i, p in enumerate((0.01, 0.03, 0.04))]
    assert "inconclusive" in verdicts(decided_together(results, "holm", 0.95))
    assert verdicts(decided_together(results, "benjamini-hochberg", 0.95)) == ["fail"] * 3


@pytest.mark.parametrize("method", ["holm", "benjamini-hochberg"])
def test_what_was_not_tested_stays_out(method: str) -> None:
    controls = [replace(control(c), p=(0.9, 1e-9)) for c in MATRIX.cells if c.is_control]
    untested = suppression(CELLS[0], 12, "fail")
    together = decided_together([*controls, untested], method, 0.95)  # type: ignore[arg-type]
    assert together == (*controls, untested)


def test_passing_is_never_taken_back() -> None:
    passed = with_p(0, 0.0, "pass")
    assert decided_together([passed], "holm", 0.95) == (passed,)
