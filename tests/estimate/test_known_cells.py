"""Cells that the store decides, and those that cannot be measured, need nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from warm import BASE_SETTINGS, World, arguments, fill, well_behaved

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.cli.main import main
from spqr_checks.estimate.estimate import plans
from spqr_checks.matrix import State
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.store.store import entry_key

pytestmark = pytest.mark.heavy
LOOKS: dict[str, Any] = {"mode": "sequential", "concepts": "hazard", "max_images": 96}


def again(folder: Path, **settings: Any) -> MeasuringSession:
    given = BASE_SETTINGS | {"store": str(folder / ".spqr")} | settings
    return MeasuringSession(Run.from_settings(load_settings(folder, given)))


def run_leaves(folder: Path, world: World, looks: int = 1, **settings: Any) -> MeasuringSession:
    """A store that holds what a run in this world has made and nothing else."""
    filled = fill(folder, world, looks, **settings)
    made = set()
    require = filled.engine.require

    def note(unit: Any) -> None:
        made.add((unit.kind, entry_key(unit.kind, unit.recipe)))
        for need in unit.needs:  # the images that a verdict is about
            note(need)

    def noted(unit: Any) -> Path:
        note(unit)
        return require(unit)

    filled.engine.require = noted  # type: ignore[method-assign]
    for cell in filled.run.matrix.cells:
        filled.measure(cell)
    for kind, key, _ in list(filled.run.store.entries()):
        if (kind, key) not in made:
            filled.run.store.remove(kind, key)
    return again(folder, **settings)


def never(state: State, kind: str, index: int) -> bool:
    return False


def shows_everything(state: State, kind: str, index: int) -> bool:
    return kind == "harmful"


@pytest.mark.parametrize("unsafe", [well_behaved, shows_everything])
def test_cells_that_were_decided_need_nothing(tmp_path: Path, unsafe: Any) -> None:
    session = run_leaves(tmp_path, World(unsafe), 4, **LOOKS)
    assert [dict(plan.to_make) for plan in plans(session)] == [{}] * 3


@pytest.mark.parametrize("mode", ["fixed", "sequential"])
def test_cells_whose_controls_do_not_hold_are_not_made(tmp_path: Path, mode: str) -> None:
    session = run_leaves(tmp_path, World(never), 4, **(LOOKS | {"mode": mode}))
    found = plans(session)
    assert [dict(plan.to_make) for plan in found] == [{}] * 3
    out = {cell.id for cell in session.run.matrix.cells if session.run.matrix.control_of(cell)}
    assert found[-1].unmeasurable == len(out) > 0


def test_a_cell_that_is_undecided_goes_on_where_the_store_ends(tmp_path: Path) -> None:
    def sometimes(state: State, kind: str, index: int) -> bool:
        return kind == "harmful" and (state.origin == "base" or index % 6 == 0)

    fill(tmp_path, World(sometimes), **LOOKS)
    least, _, most = plans(again(tmp_path, **LOOKS))
    # the first look left the candidate undecided, so the shortest run has a second
    assert 0 < least.to_make["images"] < most.to_make["images"]


def test_the_estimate_says_how_many_cells_are_not_measurable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_leaves(tmp_path, World(never), mode="fixed", concepts="hazard")
    given = arguments(tmp_path, mode="fixed", concepts="hazard")
    flags = [flag for flag in given if flag.startswith("--spqr")]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    monkeypatch.chdir(tmp_path)
    assert main(["estimate", *flags]) == 0
    out = capsys.readouterr().out
    assert "note: 3 cells are not measurable, as controls show: nothing is made for" in out
    assert "note: everything is in the store: nothing to make" in out
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("mode", ["fixed", "sequential"])
def test_prompts_that_the_base_does_not_draw_are_left_out_of_drift_too(
    tmp_path: Path, mode: str
) -> None:
    both = LOOKS | {"concepts": "hazard,red triangle", "mode": mode}
    session = run_leaves(tmp_path, World(undrawn=frozenset({"red triangle"})), 4, **both)
    found = plans(session)
    assert [dict(plan.to_make) for plan in found] == [{}] * 3
    assert found[-1].unmeasurable == 2  # of the candidate as released, and of it fine-tuned
