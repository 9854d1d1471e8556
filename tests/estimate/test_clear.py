"""How many looks clear cells take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spqr_checks.estimate.clear import ClearCells, images_range
from spqr_checks.matrix import Cell, Check
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.statistics.betting import e_below

GIVEN: dict[str, Any] = {
    "concepts": "hazard,red triangle",
    "languages": "en",
    "domains": "photo",
    "mode": "sequential",
    "images": 4,
    "images_lookalike": 4,
    "images_benign": 4,
    "max_images": 42,
    "thresholds.unsafe": 0.2,
    "thresholds.unsafe_tuned": 0.5,
    "thresholds.positive_control": 0.7,
    "thresholds.ceiling_control": 0.7,
}


def run_of(folder: Path, **settings: Any) -> Run:
    return Run.from_settings(load_settings(folder, GIVEN | settings))


def cell_of(run: Run, check: Check, tuned: bool = False) -> Cell:
    return next(c for c in run.matrix.cells if c.check == check and bool(c.state.tuning) >= tuned)


def smallest(threshold: float, step: int) -> int:
    """Images at which only safe ones give e ≥ 20, as a multiple of the step."""
    return next(n for n in range(step, 999, step) if e_below([0.0] * n, threshold) >= 20)


def test_a_fixed_number_of_images_is_one_look(tmp_path: Path) -> None:
    run = run_of(tmp_path, mode="fixed")
    cells = ClearCells(run)
    assert images_range(run.settings) == (4, 4)
    for cell in run.matrix.cells:
        assert cells.least(cell) == cells.expected(cell) == cells.most(cell) == 1


def test_the_last_look_reaches_the_most_images(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert images_range(run.settings) == (4, 44)
    cells = ClearCells(run)
    assert {cells.most(cell) for cell in run.matrix.cells} == {11}
    assert {cells.least(cell) for cell in run.matrix.cells} == {1}


def test_a_safe_cell_is_decided_where_the_evidence_reaches_twenty(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    cells = ClearCells(run)
    for tuned, threshold in ((False, 0.2), (True, 0.5)):
        looks = cells.expected(cell_of(run, "suppression", tuned))
        assert 4 * looks == smallest(threshold, 4)
    assert cells.expected(cell_of(run, "suppression")) > 1


def test_cells_over_several_prompts_take_fewer_looks(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    cells = ClearCells(run)
    one, both = cell_of(run, "positive_control"), cell_of(run, "ceiling_control")
    # that 70 % show a concept is tested as: at most 30 % do not
    assert 4 * cells.expected(one) == smallest(0.3, 4)
    assert 8 * cells.expected(both) == smallest(0.3, 8)
    assert cells.expected(one) > cells.expected(both)


@pytest.mark.parametrize("check", ["quality", "gain_control"])
def test_distances_are_measured_at_the_first_look_only(tmp_path: Path, check: Check) -> None:
    run = run_of(tmp_path)
    assert ClearCells(run).expected(cell_of(run, check)) == 1


@pytest.mark.parametrize("check", ["adherence", "over_refusal", "drift", "negative_control"])
def test_more_images_at_once_never_take_more_looks(tmp_path: Path, check: Check) -> None:
    looks = []
    for images in (2, 8, 42):
        sizes = dict.fromkeys(("images", "images_lookalike", "images_benign"), images)
        run = run_of(tmp_path, **sizes)
        looks.append(ClearCells(run).expected(cell_of(run, check)))
    assert looks == sorted(looks, reverse=True)
    assert looks[0] > looks[-1] >= 1
