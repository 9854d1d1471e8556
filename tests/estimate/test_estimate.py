"""What work costs by what earlier work took, and how long a run takes that processes share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warm import BASE_SETTINGS

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.estimate.estimate import (
    Estimate,
    Prices,
    Row,
    Span,
    estimate,
    plans,
    unpriced,
    wall_time,
)
from spqr_checks.runtime import devices
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.store.timings import Timing, Work

WANTED = Work(name="images", by="50 steps", base="mine", images=8)


def timing(seconds: float, **changes: object) -> Timing:
    return Timing(**(dict(WANTED) | {"label": "x", "seconds": seconds} | changes))  # type: ignore[arg-type]


def test_the_price_is_the_median_and_the_range_of_earlier_ones() -> None:
    price = Prices([timing(4.0), timing(9.0), timing(5.0)]).of(WANTED)
    assert price is not None
    assert price.seconds == Span(4.0, 5.0, 9.0)
    assert price.timings == 3
    assert price.same_base


def test_time_grows_with_images_and_steps() -> None:
    price = Prices([timing(4.0, images=4), timing(2.0, images=1)]).of(WANTED)
    assert price is not None
    assert price.seconds == Span(8.0, 12.0, 16.0)
    tuning = Work(name="fine-tuning lite", base="mine", steps=120)
    earlier = Timing(name="fine-tuning lite", base="mine", steps=40, label="x", seconds=10.0)
    longer = Prices([earlier]).of(tuning)
    assert longer is not None
    assert longer.seconds.expected == 30.0


def test_without_a_size_time_is_taken_as_it_was() -> None:
    price = Prices([timing(4.0, images=None)]).of(WANTED)
    assert price is not None
    assert price.seconds.expected == 4.0


def test_other_bases_count_only_where_nothing_is_known_of_this_one() -> None:
    both = Prices([timing(1.0, base="other"), timing(5.0)]).of(WANTED)
    assert both is not None
    assert (both.seconds.expected, both.timings, both.same_base) == (5.0, 1, True)
    other = Prices([timing(1.0, base="other")]).of(WANTED)
    assert other is not None
    assert (other.seconds.expected, other.same_base) == (1.0, False)


@pytest.mark.parametrize("change", [{"name": "judge"}, {"by": "5 steps"}])
def test_other_work_says_nothing(change: dict[str, str]) -> None:
    assert Prices([timing(1.0, **change)]).of(WANTED) is None
    assert Prices([]).of(WANTED) is None


@given(seconds=st.lists(st.floats(0, 1e6), min_size=1, max_size=9), images=st.integers(1, 99))
def test_the_median_lies_within_the_range(seconds: list[float], images: int) -> None:
    price = Prices([timing(s, images=images) for s in seconds]).of(WANTED)
    assert price is not None
    span = price.seconds
    assert span.fastest <= span.expected <= span.slowest
    assert span.fastest == pytest.approx(min(seconds) * 8 / images)


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


def test_processes_share_the_work_but_not_a_chain_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_cores", lambda: 1000)
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


@st.composite
def work(draw: st.DrawFn) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Tasks that need earlier ones only."""
    n = draw(st.integers(1, 12))
    needs = {
        str(i): draw(st.lists(st.sampled_from([str(j) for j in range(i)]), max_size=3)) if i else []
        for i in range(n)
    }
    return needs, {task: float(draw(st.integers(0, 20))) for task in needs}


def longest_chain(needs: dict[str, list[str]], seconds: dict[str, float]) -> float:
    ends: dict[str, float] = {}
    for task, before in needs.items():
        ends[task] = seconds[task] + max((ends[need] for need in before), default=0.0)
    return max(ends.values())


@given(work=work(), workers=st.integers(1, 5))
def test_the_time_lies_within_grahams_bounds(
    work: tuple[dict[str, list[str]], dict[str, float]], workers: int
) -> None:
    needs, seconds = work
    chain, total = longest_chain(needs, seconds), sum(seconds.values())
    time = wall_time(needs, seconds, workers)
    assert max(chain, total / workers) <= time + 1e-9
    assert time <= chain + total / workers + 1e-9


@given(work=work())
def test_one_process_does_everything_and_many_only_wait_for_the_chain(
    work: tuple[dict[str, list[str]], dict[str, float]],
) -> None:
    needs, seconds = work
    assert wall_time(needs, seconds, 1) == sum(seconds.values())
    assert wall_time(needs, seconds, len(needs)) == longest_chain(needs, seconds)


def test_what_needs_an_alignment_waits_while_others_go_on() -> None:
    needs = {
        "alignment": [],
        "tuning": ["alignment"],
        "tuned images": ["tuning"],
        **{f"base images {i}": [] for i in range(6)},
    }
    seconds = {"alignment": 4.0, "tuning": 3.0, "tuned images": 1.0} | {
        f"base images {i}": 1.0 for i in range(6)
    }
    assert wall_time(needs, seconds, 1) == 14
    assert wall_time(needs, seconds, 2) == 8
    assert wall_time(needs, seconds, 9) == 8


def test_nothing_takes_no_time_and_tasks_without_seconds_none() -> None:
    assert wall_time({}, {}, 3) == 0
    assert wall_time({"a": [], "b": ["a"]}, {"b": 2.0}, 1) == 2


@pytest.mark.parametrize(
    ("needs", "workers", "words"),
    [
        ({"a": []}, 0, "0 workers"),
        ({"a": ["b"]}, 1, "not there"),
        ({"a": ["b"], "b": ["a"]}, 1, "cycle"),
    ],
)
def test_impossible_work_is_refused(needs: dict[str, list[str]], workers: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wall_time(needs, {}, workers)
