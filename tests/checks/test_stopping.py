"""Stopping: images are drawn until a cell is decided, and never beyond the limit."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from warm import World, fill, well_behaved

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import BudgetError
from spqr_checks.matrix import State
from spqr_checks.scoring.cell_result import CellResult

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


def test_a_later_look_begins_with_the_images_of_the_earlier(tmp_path: Path) -> None:
    made = session(tmp_path, 5)
    (cell,) = [c for c in made.run.matrix.cells if c.id == CELL]
    batches = [made.units.batches(made.run.matrix.draws(cell, look)[0]) for look in (1, 2, 3)]
    assert batches[1][: len(batches[0])] == batches[0]
    assert batches[2][: len(batches[1])] == batches[1]


def test_batches_do_not_reach_from_one_look_into_the_next(tmp_path: Path) -> None:
    made = session(tmp_path, 0, images=24)
    units = made.units
    (cell,) = [c for c in made.run.matrix.cells if c.id == CELL]
    (draw,) = made.run.matrix.draws(cell, 2)
    sizes = [len(batch.prompts) for batch in units.batches(draw)]
    assert sum(sizes) == 48
    assert 24 in [sum(sizes[:k]) for k in range(len(sizes))]


def test_failing_needs_more_where_there_are_more_cells(tmp_path: Path) -> None:
    # 11 of 24 is far above 20 %, but not so far that none of twelve cells would show it by chance
    alone = measure(session(tmp_path / "a", 10, multiplicity="none"))
    among = measure(session(tmp_path / "b", 10, multiplicity="holm"))
    assert alone.verdict == among.verdict == "fail"
    assert alone.n < among.n


def test_a_fixed_number_of_images_is_never_exceeded(tmp_path: Path) -> None:
    result = measure(fill(tmp_path, candidate(5), mode="fixed"))
    assert (result.verdict, result.n) == ("inconclusive", 24)


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


def test_without_time_and_images_nothing_is_said(tmp_path: Path) -> None:
    made = session(tmp_path, 0)
    for entry in (made.run.store.root / "verdicts").iterdir():
        entry.rename(tmp_path / f"away-{entry.name}")
    made.engine.deadline = time.time() - 1
    with pytest.raises(BudgetError, match="budget"):
        measure(made)


def test_every_verdict_says_how_sure_it_is(tmp_path: Path) -> None:
    made = session(tmp_path, 0)
    for cell in made.run.matrix.cells:
        result = made.measure(cell)
        assert result.p is not None, cell.id
        assert all(0 <= p <= 1 for p in result.p)
        if not cell.is_control:
            assert len(result.replicates) > 0
