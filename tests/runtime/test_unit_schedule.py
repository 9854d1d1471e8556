"""How long work takes that several processes share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.estimate.schedule import wall_time


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
        ({"a": ["b"], "b": ["a"]}, 1, "circle"),
    ],
)
def test_impossible_work_is_refused(needs: dict[str, list[str]], workers: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wall_time(needs, {}, workers)
