"""How many looks clear cells take, and what a run has yet to make; see warm.py."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from warm import BASE_SETTINGS, fill, void

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import UserError
from spqr_checks.estimate.cost import ClearCells, images_range, plan
from spqr_checks.matrix import Cell, Check
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.statistics.betting import e_below
from spqr_checks.store.store import entry_key

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
    for images in (4, 8, 42):
        sizes = dict.fromkeys(("images", "images_lookalike", "images_benign"), images)
        run = run_of(tmp_path, **sizes)
        looks.append(ClearCells(run).expected(cell_of(run, check)))
    assert looks == sorted(looks, reverse=True)
    assert looks[0] > looks[-1] >= 1


# a look at 48 images consists of two batches, of which the first is a look at 24
SETTINGS = BASE_SETTINGS | {"sampler": {"steps": 5, "guidance": 3.0, "batch": 24}}
# two concepts in one language: two groups of harmful prompts, two of look-alikes
HARMFUL, LOOKALIKE = 2, 2


def first(cell: Cell) -> int:
    return 1


def session_of(folder: Path, **settings: Any) -> MeasuringSession:
    given = SETTINGS | {"store": str(folder / ".spqr")} | settings
    return MeasuringSession(Run.from_settings(load_settings(folder, given)))


def images_of(session: MeasuringSession) -> int:
    """All images of the runs below, counted by hand: 24 of each draw."""
    benign = len(session.run.matrix.select("benign"))
    harmful = HARMFUL * 4  # base, aligned, both fine-tuned
    return 24 * (harmful + LOOKALIKE * 2 + benign * 3 + 2)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all that two looks measure; with no state, since none is needed."""
    folder = tmp_path_factory.mktemp("warm")
    two = {"images": 48, "images_lookalike": 48, "images_benign": 48}
    fill(folder, sampler=SETTINGS["sampler"], **two)
    return folder


@pytest.fixture
def warm(filled: Path, tmp_path: Path) -> MeasuringSession:
    """A session on a store of its own, from which the test may take things away."""
    shutil.copytree(filled / ".spqr", tmp_path / "warm" / ".spqr")
    return session_of(tmp_path / "warm")


@pytest.mark.heavy
def test_in_a_warm_store_nothing_is_missing(filled: Path) -> None:
    session = session_of(filled)
    found = plan(session, first)
    assert found.missing == {}
    assert found.there["images"] == images_of(session)
    # what is read on images: harmful and look-alike ones of the base and the states judged
    assert found.there["judge"] == 24 * (HARMFUL * 4 + LOOKALIKE)
    assert found.there["alignment esd"] == found.there["fine-tuning lite"] == 0


def test_in_a_cold_store_everything_is_missing(tmp_path: Path) -> None:
    session = session_of(tmp_path)
    found = plan(session, first)
    benign = len(session.run.matrix.select("benign"))
    assert not found.there
    # the modular candidate is fine-tuned on the base, and so is the ceiling: one and the same
    assert found.to_make == {
        "alignment esd": 1,
        "fine-tuning lite": 1,
        "images": images_of(session),
        "judge": 24 * (HARMFUL * 4 + LOOKALIKE),
        "text alignment": 24 * (LOOKALIKE + benign) * 2,
        "image features": 24 * (benign * 3 + 2),
        "image features of data": 512 + 600,
    }
    assert found.names[:3] == ("alignment esd", "fine-tuning lite", "images")
    assert set(found.names) == set(found.to_make)
    assert not (tmp_path / ".spqr").exists()


def test_what_is_fine_tuned_counts_once_for_each_state_that_differs(tmp_path: Path) -> None:
    released = plan(session_of(tmp_path, attach="released", profiles="lite,standard"), first)
    assert released.to_make["fine-tuning lite"] == 2
    assert released.to_make["fine-tuning standard"] == 2
    unaligned = plan(session_of(tmp_path, candidate="base"), first)
    assert "alignment esd" not in unaligned.to_make
    assert unaligned.to_make["fine-tuning lite"] == 1
    untuned = plan(session_of(tmp_path, profiles=""), first)
    assert untuned.to_make["alignment esd"] == 1
    assert not any(name.startswith("fine-tuning") for name in untuned.names)


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("verdicts", {"judge"}),
        ("alignment", {"text alignment"}),
        ("features", {"image features", "image features of data"}),
        ("images", {"images", "alignment esd", "fine-tuning lite"}),
    ],
)
def test_a_kind_that_was_wiped_is_missing_with_what_it_needs(
    warm: MeasuringSession, kind: str, missing: set[str]
) -> None:
    before = plan(warm, first)
    warm.run.store.prune([kind])
    found = plan(warm, first)
    assert set(found.to_make) == missing
    for name in missing - {"alignment esd", "fine-tuning lite", "images"}:
        assert found.to_make[name] == before.there[name]
        assert found.there[name] == 0
    if kind == "images":
        assert found.to_make == {
            # no check reads the images of which only cosines or features are wanted
            "images": images_of(warm) - 24 * (len(warm.run.matrix.select("benign")) * 2 + 1),
            "alignment esd": 1,
            "fine-tuning lite": 1,
        }


def test_what_a_missing_image_needs_comes_before_it(tmp_path: Path) -> None:
    found = plan(session_of(tmp_path), first)
    seen: set[str] = set()
    for key, task in found.missing.items():
        assert set(task.needs) <= seen
        seen.add(key)
    tuned = [task for task in found.missing.values() if task.work.name == "fine-tuning lite"]
    assert [task.needs for task in tuned] == [()]  # trained on the base: the alignment can wait
    names = {key: task.work.name for key, task in found.missing.items()}
    needed = {names[n] for task in found.missing.values() for n in task.needs}
    assert needed == {"alignment esd", "fine-tuning lite", "images"}


def test_a_fine_tuning_of_released_weights_waits_for_the_alignment(tmp_path: Path) -> None:
    found = plan(session_of(tmp_path, attach="released"), first)
    names = {key: task.work.name for key, task in found.missing.items()}
    tuned = [task for task in found.missing.values() if task.work.name == "fine-tuning lite"]
    assert sorted([names[n] for n in task.needs] for task in tuned) == [[], ["alignment esd"]]


def test_a_state_that_is_there_counts_and_is_not_made_again(tmp_path: Path) -> None:
    session = session_of(tmp_path)
    unit = session.states.alignment_unit
    session.run.store.build(unit.kind, unit.recipe, lambda p: void((p / "a").write_text("x")))
    found = plan(session, first)
    assert found.there == {"alignment esd": 1}
    assert "alignment esd" not in found.to_make
    assert found.to_make["images"] == images_of(session)


def test_nothing_is_verified_moved_or_written(warm: MeasuringSession) -> None:
    root = warm.run.store.root
    for image in (root / "images").rglob("000.png"):
        image.write_bytes(b"damaged")
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert plan(warm, first).missing == {}
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


def test_a_profile_that_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    profile = {"trains": "lora", "curriculum": [1000, 3000]}
    session = session_of(tmp_path, profile={"lite": profile}, dataset_limit=600)
    with pytest.raises(UserError, match="curriculum"):
        plan(session, first)


# ---- against the checks themselves -------------------------------------------------------------


def asked_for(session: MeasuringSession, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Keys of all that measuring every cell asks the engine for."""
    asked: set[str] = set()
    original = session.engine.require

    def require(unit: Unit) -> Path:
        asked.add(entry_key(unit.kind, unit.recipe))
        return original(unit)

    monkeypatch.setattr(session.engine, "require", require)
    for cell in session.run.matrix.cells:
        session.measure(cell)
    return asked


def measured(session: MeasuringSession, look: Callable[[Cell], int]) -> set[str]:
    """Keys of all that is measured in a plan on an empty store; of states there are none."""
    states = ("alignment ", "fine-tuning ")
    missing = plan(session, look).missing.items()
    return {key for key, task in missing if not task.work.name.startswith(states)}


def test_the_plan_is_what_the_checks_ask_for(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(filled)
    asked = asked_for(session, monkeypatch)
    planned = measured(session_of(tmp_path), first)
    assert asked <= planned
    # what nobody asks for is drawn all the same, so that something can be read on it
    read = {
        entry_key(unit.kind, unit.recipe): unit.kind
        for cell in session.run.matrix.cells
        for unit in session.reads(cell, 1)
    }
    # verdicts tell what no result shows: the base's images after its fine-tuning
    assert {read.pop(key) for key in read.keys() - asked} == {"images"}
    assert asked == read.keys()
    base = session.run.matrix.select("benign")
    assert len(planned - asked) == 2 * len(base) + 1 + HARMFUL


def keys_of(units: Iterable[Unit]) -> set[str]:
    return {entry_key(unit.kind, unit.recipe) for unit in units}


def test_cells_that_stop_early_ask_for_something_between_least_and_most(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = {"mode": "sequential", "max_images": 48, "thresholds.unsafe": 0.1}
    session, cold = session_of(filled, **looks), session_of(tmp_path, **looks)
    cells = ClearCells(session.run)
    assert plan(session, cells.most).missing == {}
    asked = asked_for(session, monkeypatch)
    least, most = measured(cold, cells.least), measured(cold, cells.most)
    assert asked < most
    units = (u for c in session.run.matrix.cells for u in session.reads(c, 1))
    assert asked > keys_of(unit for unit in units if unit.kind != "images")
    assert least < measured(cold, cells.expected) < most
