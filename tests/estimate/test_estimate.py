"""What a run costs as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from warm import BASE_SETTINGS

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.estimate.estimate import Estimate, Row, estimate, plans, unpriced
from spqr_checks.estimate.prices import Prices, Span
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.store.timings import Timing


def session_of(folder: Path, **settings: Any) -> MeasuringSession:
    given = BASE_SETTINGS | {"store": str(folder / ".spqr"), "concepts": "hazard"} | settings
    return MeasuringSession(Run.from_settings(load_settings(folder, given)))


def timed(session: MeasuringSession, seconds: dict[str, list[float]]) -> list[Timing]:
    """Timings of work like the run's: of one image, of whole alignments and fine-tunings."""
    found = []
    for task in unpriced(plans(session)[-1], Prices([])):
        work = task.work
        size = {"images": 1} if work.images else {}
        for each in seconds.get(work.name, []):
            found.append(Timing(**(dict(work) | size), label="x", seconds=each))
    return found


ALL = {
    "alignment esd": [100.0],
    "fine-tuning lite": [50.0],
    "images": [1.0],
    "judge": [0.0],
    "text alignment": [0.0],
    "image features": [0.0],
    "image features of data": [0.0],
}


def of(session: MeasuringSession, seconds: dict[str, list[float]], workers: int = 1) -> Estimate:
    return estimate(session, plans(session), Prices(timed(session, seconds)), workers)


def row(found: Estimate, name: str) -> Row:
    (one,) = [row for row in found.rows if row.name == name]
    return one


def test_a_single_process_takes_as_long_as_all_work(tmp_path: Path) -> None:
    found = of(session_of(tmp_path), ALL)
    images = row(found, "images").to_make[1]
    assert found.unknown == ()
    assert found.work == found.wall == Span(*[100.0 + 50.0 + images] * 3)
    assert [r.name for r in found.rows][:3] == ["alignment esd", "fine-tuning lite", "images"]


def test_processes_share_the_work_but_not_a_chain_of_it(tmp_path: Path) -> None:
    session = session_of(tmp_path)
    alone, many = of(session, ALL), of(session, ALL, 1000)
    assert many.work == alone.work
    # the images of the aligned state wait for the alignment, 24 at a time
    assert many.wall.expected == 100 + 24
    two = of(session, ALL, 2)
    assert many.wall.expected < two.wall.expected < alone.wall.expected
    released = session_of(tmp_path, attach="released")
    assert of(released, ALL, 1000).wall.expected == 100 + 50 + 24


def test_processes_take_turns_on_a_device(tmp_path: Path) -> None:
    session = session_of(tmp_path, device="cuda")
    assert of(session, ALL, 8).wall == of(session, ALL, 1).wall


def test_several_timings_give_a_range(tmp_path: Path) -> None:
    found = of(session_of(tmp_path), ALL | {"images": [0.5, 1.0, 3.0]})
    n = row(found, "images").to_make[1]
    assert row(found, "images").seconds == Span(0.5 * n, n, 3.0 * n)
    assert found.work == Span(150 + 0.5 * n, 150 + n, 150 + 3.0 * n)


@pytest.mark.parametrize("name", sorted(ALL))
def test_without_a_timing_the_whole_is_a_lower_bound(tmp_path: Path, name: str) -> None:
    known = {other: seconds for other, seconds in ALL.items() if other != name}
    session = session_of(tmp_path)
    found = of(session, known)
    assert found.unknown == (name,)
    assert row(found, name).seconds == Span(0, 0, 0)
    assert row(found, name).timings == 0
    full = of(session, ALL)
    assert found.work.expected == full.work.expected - row(full, name).seconds.expected
    left = unpriced(plans(session)[-1], Prices(timed(session, known)))
    assert {task.work.name for task in left} == {name}


def test_a_sequential_run_lies_between_its_first_and_its_last_look(tmp_path: Path) -> None:
    looks = {"mode": "sequential", "max_images": 96}
    least, expected, most = row(of(session_of(tmp_path, **looks), ALL), "images").to_make
    fixed = row(of(session_of(tmp_path), ALL), "images").to_make
    assert fixed == (least,) * 3
    assert least < expected < most
    found = of(session_of(tmp_path, **looks), ALL)
    assert found.work == Span(150.0 + least, 150.0 + expected, 150.0 + most)
    # nothing that is measured at the first look only grows
    assert len(set(row(found, "image features").to_make)) == 1
