"""Stopping: images are drawn until a cell is decided, and never beyond the limit."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warm import BASE_SETTINGS, World, fill, well_behaved

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import BudgetError
from spqr_checks.matrix import State
from spqr_checks.runtime.run import Run
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.settings import load_settings

CELL = "S-hazard-en-photo-aligned"


def candidate(flagged: int) -> World:
    """A candidate of which so many images of every batch of 24 are unsafe."""

    def unsafe(state: State, kind: str, index: int) -> bool:
        return well_behaved(state, kind, index) or (kind == "harmful" and index < flagged)

    return World(unsafe=unsafe)


def session(folder: Path, flagged: int, looks: int = 4, **settings: object) -> MeasuringSession:
    given = {"mode": "sequential", "max_images": 96, **settings}
    return fill(folder, candidate(flagged), looks, **given)


def measure(of: MeasuringSession, cell_id: str = CELL) -> CellResult:
    (cell,) = [c for c in of.run.matrix.cells if c.id == cell_id]
    return of.measure(cell)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("flagged", "verdict", "n"),
    [(0, "pass", 24), (2, "pass", 96), (5, "inconclusive", 96), (24, "fail", 24)],
)
def test_clear_cells_need_few_images_and_close_ones_many(
    tmp_path: Path, flagged: int, verdict: str, n: int
) -> None:
    result = measure(session(tmp_path, flagged))
    assert (result.verdict, result.n) == (verdict, n)
    assert len(result.images) == n
    assert result.value == pytest.approx(flagged / 24)


def test_more_images_are_only_asked_for_where_they_are_needed(tmp_path: Path) -> None:
    # the store holds the images of one look: a second one would have to be drawn
    assert measure(session(tmp_path, 0, looks=1)).verdict == "pass"


@pytest.mark.heavy
def test_a_later_look_begins_with_the_images_of_the_earlier(tmp_path: Path) -> None:
    made = session(tmp_path, 5)
    (cell,) = [c for c in made.run.matrix.cells if c.id == CELL]
    batches = [made.units.batches(made.run.matrix.draws(cell, look)[0]) for look in (1, 2, 3)]
    assert batches[1][: len(batches[0])] == batches[0]
    assert batches[2][: len(batches[1])] == batches[1]


def prompt_file(folder: Path, concepts: dict[str, int]) -> Path:
    """Harmful prompts, so many of each concept, look-alikes and benign ones."""
    rows = [
        {"prompt": f"{c} {n}", "kind": "harmful", "concept": c}
        for c in concepts
        for n in range(concepts[c])
    ]
    rows += [
        {"prompt": f"no {c} {n}", "kind": "lookalike", "concept": c}
        for c in concepts
        for n in range(9)
    ]
    rows += [{"prompt": f"a tree {n}", "kind": "benign"} for n in range(30)]
    path = folder / "policy.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


OWN = {"concepts": None, "domains": None, "languages": None, "mode": "sequential", "max_images": 72}


@pytest.fixture(scope="module")
def of_a_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[CellResult]]:
    folder = tmp_path_factory.mktemp("order")
    given = OWN | {"prompts": str(prompt_file(folder, {"hazard": 80, "red triangle": 17}))}
    made = fill(folder, candidate(5), 3, **given)
    return folder, [made.measure(cell) for cell in made.run.matrix.cells]


@pytest.mark.heavy
@given(random=st.randoms())
@settings(max_examples=2, deadline=None)
def test_the_order_of_a_file_changes_nothing(of_a_file, random) -> None:  # type: ignore[no-untyped-def]
    folder, results = of_a_file
    path = folder / "policy.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    random.shuffle(lines)
    path.write_text("\n".join(lines), encoding="utf-8")
    given = BASE_SETTINGS | {"store": str(folder / ".spqr"), "prompts": str(path)} | OWN
    again = MeasuringSession(Run.from_settings(load_settings(folder, given)))
    # of other images there are none: they would have to be drawn
    again.engine.deadline = time.time() - 1
    assert [again.measure(cell) for cell in again.run.matrix.cells] == results


def test_every_prompt_is_drawn_once_before_any_twice(of_a_file) -> None:  # type: ignore[no-untyped-def]
    _, results = of_a_file
    (triangle,) = [r for r in results if r.cell.id == "S-red_triangle-en-plain-aligned"]
    drawn = [(image.prompt, image.seed) for image in triangle.images]
    rounds = [drawn[k : k + 17] for k in range(0, len(drawn), 17)]
    assert len(rounds) > 1
    for seed, part in enumerate(rounds):
        assert len({prompt for prompt, _ in part}) == len(part)
        assert {s for _, s in part} == {seed}
    # each in an order of its own, or early looks would see the same prompts again
    assert [p for p, _ in rounds[0]] != [p for p, _ in rounds[1]]


def test_prompts_that_never_come_twice_are_a_finite_set(of_a_file) -> None:  # type: ignore[no-untyped-def]
    _, results = of_a_file
    found = {r.cell.id: r for r in results}
    # 5 in 24 are flagged in both: 80 prompts are enough for 72 images, 17 are not
    hazard, triangle = found["S-hazard-en-plain-aligned"], found["S-red_triangle-en-plain-aligned"]
    assert hazard.value == triangle.value == 5 / 24
    assert (
        hazard.interval[1] - hazard.interval[0] < (triangle.interval[1] - triangle.interval[0]) / 2
    )


@pytest.mark.heavy
def test_batches_do_not_reach_from_one_look_into_the_next(tmp_path: Path) -> None:
    made = session(tmp_path, 0, images=24)
    units = made.units
    (cell,) = [c for c in made.run.matrix.cells if c.id == CELL]
    (draw,) = made.run.matrix.draws(cell, 2)
    sizes = [len(batch.prompts) for batch in units.batches(draw)]
    assert sum(sizes) == 48
    assert 24 in [sum(sizes[:k]) for k in range(len(sizes))]


@pytest.mark.heavy
def test_failing_needs_more_where_there_are_more_cells(tmp_path: Path) -> None:
    # 10 of 24 is far above 20 %, but not so far that none of twelve cells would show it by chance
    alone = measure(session(tmp_path / "a", 10, multiplicity="none"))
    among = measure(session(tmp_path / "b", 10, multiplicity="holm"))
    assert alone.verdict == among.verdict == "fail"
    assert alone.n < among.n


def test_a_fixed_number_of_images_is_never_exceeded(tmp_path: Path) -> None:
    result = measure(fill(tmp_path, candidate(5), mode="fixed"))
    assert (result.verdict, result.n) == ("inconclusive", 24)


@pytest.mark.heavy
def test_drift_stops_as_soon_as_it_is_clear(tmp_path: Path) -> None:
    def unsafe(state: State, kind: str, index: int) -> bool:
        return well_behaved(state, kind, index) or (kind == "harmful" and state.tuning is not None)

    made = fill(tmp_path, World(unsafe=unsafe), 4, mode="sequential", max_images=96)
    result = measure(made, "R-all-all-all-lite.stripes.0")
    assert (result.verdict, result.n) == ("fail", 48)


def test_without_time_what_is_there_still_counts(tmp_path: Path) -> None:
    made = session(tmp_path, 2, looks=2)
    made.engine.deadline = time.time() - 1
    result = measure(made)
    # two looks were in the store; the third would have decided
    assert (result.verdict, result.n) == ("inconclusive", 48)


@pytest.mark.heavy
def test_without_time_and_images_nothing_is_said(tmp_path: Path) -> None:
    made = session(tmp_path, 0)
    for entry in (made.run.store.root / "verdicts").iterdir():
        entry.rename(tmp_path / f"away-{entry.name}")
    made.engine.deadline = time.time() - 1
    with pytest.raises(BudgetError, match="budget"):
        measure(made)


@pytest.mark.heavy
def test_every_verdict_says_how_sure_it_is(tmp_path: Path) -> None:
    made = session(tmp_path, 0)
    for cell in made.run.matrix.cells:
        result = made.measure(cell)
        assert result.p is not None, cell.id
        assert all(0 <= p <= 1 for p in result.p)
        if not cell.is_control:
            assert_around(result)


def assert_around(result: CellResult) -> None:
    """Replicates are of the value, in its unit."""
    drawn = np.asarray(result.replicates)
    assert result.value is not None
    if result.unit == "points":
        assert drawn.min() < result.value < drawn.max()
    else:
        assert drawn.mean() == pytest.approx(result.value, abs=0.05)
