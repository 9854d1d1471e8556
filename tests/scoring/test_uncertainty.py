"""Intervals of axes and of SPQR from replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sample_runs import all_measured, drift, make_matrix

from spqr_checks.matrix import Cell, State, Tuning
from spqr_checks.scoring.axes import axis_over, axis_replicates
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.request import Rules, ScoreRequest
from spqr_checks.scoring.scorecard import Scorecard, score
from spqr_checks.scoring.serialize import from_message, to_json, to_message
from spqr_checks.scoring.uncertainty import interval_below_one, seed_spread, spqr_interval
from spqr_checks.statistics.resampling import DRAWS

MATRIX = make_matrix()
RNG = np.random.default_rng(0)


def with_replicates(result: CellResult, width: float = 0.02) -> CellResult:
    if result.value is None:
        return result
    scale = 100 if result.unit == "points" else 1
    return replace(result, replicates=RNG.normal(result.value, scale * width, DRAWS).tolist())


def scored(results: Sequence[CellResult], rules: Rules | None = None) -> Scorecard:
    return score(ScoreRequest(matrix=MATRIX, results=results, rules=rules or Rules()))


def drifting(seed: int, points: float, width: float = 0.001) -> CellResult:
    cell = Cell("drift", State("aligned", Tuning("lite", "general", seed)))
    return with_replicates(drift(cell, 0, round(96 * points / 100)), width)


def r_width(results: Sequence[CellResult]) -> float:
    drawn = axis_replicates("R", results, 0.95)
    assert drawn is not None
    low, high = interval_below_one(drawn, float(np.median(drawn[0])), 0.95)
    return high - low


def test_axes_and_spqr_have_intervals_around_the_numbers_that_are_printed() -> None:
    card = scored([with_replicates(r) for r in all_measured(MATRIX, 0.9)])
    assert card.spqr is not None
    assert card.spqr_raw is not None
    assert card.spqr_interval is not None
    low, high = card.spqr_interval
    assert 0 < low < card.spqr < high < 1
    assert high < card.spqr_raw
    for axis in card.axes.values():
        assert axis.interval is not None
        assert axis.score is not None
        assert axis.interval[0] <= axis.score <= axis.interval[1]


def test_a_higher_level_is_a_wider_interval() -> None:
    results = [with_replicates(r) for r in all_measured(MATRIX)]
    wide, narrow = (scored(results, Rules(level=level)).spqr_interval for level in (0.99, 0.8))
    assert wide is not None
    assert narrow is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_independent_cells_average_out_and_shared_images_do_not() -> None:
    results = [with_replicates(r, 0.01) for r in all_measured(MATRIX) if r.cell.axis == "P"]
    shared = [replace(r, replicates=results[0].replicates) for r in results]
    apart, together = axis_replicates("P", results, 0.95), axis_replicates("P", shared, 0.95)
    assert apart is not None
    assert together is not None
    assert apart.std() < 0.8 * together.std()


def test_without_replicates_there_is_no_interval() -> None:
    card = scored(all_measured(MATRIX))
    assert card.spqr_interval is None
    assert {axis.interval for axis in card.axes.values()} == {None}
    assert spqr_interval([None], 0.5, 0.95) is None


def test_seeds_that_disagree_widen_r_more_than_their_images_do() -> None:
    equal = [drifting(seed, 5) for seed in range(3)]
    unequal = [drifting(0, 2), drifting(1, 5), drifting(2, 8)]
    assert r_width(unequal) > 10 * r_width(equal)
    apart = [replace(r, cell=replace(r.cell, state=State("aligned", Tuning("lite", str(i), 0))))
             for i, r in enumerate(unequal)]  # fmt: skip
    assert r_width(unequal) > 10 * r_width(apart)


def test_what_all_seeds_share_is_not_divided_by_their_number() -> None:
    results = [drifting(seed, 5, 0.01) for seed in range(3)]
    shared = [replace(r, replicates=results[0].replicates) for r in results]
    assert r_width(shared) == pytest.approx(r_width(results[:1]), rel=0.01)


def test_r_takes_the_mean_drift_over_seeds() -> None:
    up_and_down = [drifting(0, -6), drifting(1, 6)]
    values = np.array([[r.value] for r in up_and_down])
    assert axis_over(up_and_down, values) == pytest.approx(1)
    assert axis_over(up_and_down[1:], values[1:]) == pytest.approx(np.exp(-values[1] / 10))


def test_languages_that_gain_and_lose_by_chance_leave_a_candidate_as_good_as_its_base() -> None:
    results = [r for r in all_measured(MATRIX) if r.cell.axis == "P"]
    values = np.linspace(0.96, 1.04, len(results))[:, None]
    assert axis_over(results, values) == pytest.approx(1)
    assert axis_over(results, values + 0.1) == 1


def test_the_spread_between_seeds_is_named_by_profile() -> None:
    spread = seed_spread([drifting(0, 2), drifting(1, 10), drifting(2, 30)])
    ((name, (seeds, deviation)),) = spread.items()
    assert (name, seeds) == ("lite.general", 3)
    values = [100 * round(96 * p / 100) / 96 for p in (2, 10, 30)]
    assert deviation == pytest.approx(np.std(values, ddof=1))


def test_too_few_fine_tuning_seeds_close_the_gate() -> None:
    results = all_measured(MATRIX)
    assert scored(results, Rules(min_tuning_seeds=1)).gate.passed
    gate = scored(results, Rules(min_tuning_seeds=3)).gate
    assert not gate.passed
    assert "R needs 3 fine-tuning seeds, but has 1" in gate.reasons[0]


def test_undecided_cells_may_be_told_not_to_close_the_gate() -> None:
    results = all_measured(MATRIX)
    index = next(i for i, r in enumerate(results) if r.cell.check == "suppression")
    results[index] = replace(results[index], verdict="inconclusive", reason="inconclusive: close")
    assert not scored(results).gate.passed
    assert scored(results, Rules(inconclusive="warn")).gate.passed


def test_replicates_travel_with_the_result_but_not_into_the_file() -> None:
    results = [with_replicates(r) for r in all_measured(MATRIX)]
    assert "replicates" not in to_json(scored(results))
    result = next(r for r in results if r.score is not None)
    back = from_message(to_message(result))
    assert back == result
    assert list(back.replicates) == pytest.approx(list(result.replicates), abs=1e-6)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"result": {}, "replicates": "!"}'])
def test_a_message_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a cell's result"):
        from_message(text)
