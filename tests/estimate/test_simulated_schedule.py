"""A run played through on many devices: within the bounds that no schedule can leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.estimate.schedule import Job, simulate


@st.composite
def work(draw: st.DrawFn) -> dict[str, Job]:
    """Jobs that need earlier ones only."""
    n = draw(st.integers(1, 12))
    found = {}
    for i in range(n):
        earlier = st.lists(st.sampled_from([str(j) for j in range(i)]), max_size=2, unique=True)
        needs = tuple(draw(earlier)) if i else ()
        state = draw(st.sampled_from(["", "a", "b"]))
        found[str(i)] = Job(float(draw(st.integers(0, 20))), needs, state, 10, 3.0)
    return found


@pytest.mark.heavy
@given(jobs=work(), devices=st.integers(1, 5))
def test_the_makespan_lies_within_grahams_bounds(jobs: dict[str, Job], devices: int) -> None:
    found = simulate(jobs, devices)
    total = sum(job.seconds for job in jobs.values())
    assert found.busy == pytest.approx(total + 3.0 * found.loads)
    assert max(found.chain, total / devices) <= found.makespan + 1e-9
    # a chain of loads and jobs, and all work shared out
    longest = found.chain + 3.0 * len(jobs)
    assert found.makespan <= longest + found.busy / devices + 1e-9
    assert 0 <= found.utilisation <= 1 + 1e-9


@given(jobs=work())
def test_one_device_does_everything_and_receives_nothing_that_it_made(jobs: dict[str, Job]) -> None:
    found = simulate(jobs, 1)
    assert found.makespan == pytest.approx(found.busy)
    assert found.moved == 10 * len(jobs)


def test_a_device_stays_with_a_state_and_what_it_needs_is_sent_once() -> None:
    jobs = {"weights": Job(5.0, (), "base", 1000)}
    jobs |= {f"a{i}": Job(1.0, ("weights",), "a", 1, 2.0) for i in range(4)}
    jobs |= {f"b{i}": Job(1.0, (), "b", 1, 2.0) for i in range(4)}
    found = simulate(jobs, 2)
    # one makes the weights (5) while the other draws all of b (2 + 4); a is ready at 5, and shared
    assert (found.makespan, found.loads) == (10, 4)
    assert found.moved == 1000 + 8 + 1000


def test_what_limits_a_run_is_named() -> None:
    jobs = {str(i): Job(1.0) for i in range(100)}
    assert simulate(jobs, 2).limit == "devices"
    assert simulate(jobs | {"long": Job(90.0)}, 50).limit == "the longest chain"
    assert simulate({str(i): Job(1.0) for i in range(5)} | {"x": Job(0.5, ("1",))}, 4).limit == (
        "the last jobs"
    )
    with pytest.raises(ValueError, match="0 devices"):
        simulate(jobs, 0)
    with pytest.raises(ValueError, match="not there"):
        simulate({"a": Job(1.0, ("b",))}, 1)


def test_the_command_plays_the_run_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from warm import arguments, fill

    from spqr_checks.cli.main import main
    from spqr_checks.estimate.estimate import plans
    from spqr_checks.store.timings import Timing, record

    monkeypatch.chdir(tmp_path)
    session = fill(tmp_path, concepts="hazard")
    session.run.store.prune(["verdicts"])
    for key, task in plans(session)[-1].missing.items():
        timing = Timing(**dict(task.work), label="x", seconds=90.0)
        record(session.run.store.root, "verdicts", key, timing)
    given = [a for a in arguments(tmp_path, concepts="hazard") if a.startswith("--spqr")]
    assert main(["estimate", *given, "--devices", "4"]) == 0
    said = capsys.readouterr().out
    # five batches of 90 seconds on four devices
    assert "note: 4 devices: 3 min, busy 62% of it, sizes are not known yet; limited by" in said
    assert main(["estimate", *given, "--devices", "none"]) == 4
