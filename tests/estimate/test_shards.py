"""Shares of a run: together they are the whole, whatever a machine's own store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warm import BASE_SETTINGS, fill

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import UserError
from spqr_checks.estimate.shards import shares, split
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.store.store import entry_key
from spqr_checks.store.timings import Timing, record

SMALL: dict[str, Any] = {"concepts": "hazard", "domains": "photo,flat"}


def session_of(folder: Path, **settings: Any) -> MeasuringSession:
    given = BASE_SETTINGS | {"store": str(folder / ".spqr")} | SMALL | settings
    return MeasuringSession(Run.from_settings(load_settings(folder, given)))


def read_keys(session: MeasuringSession) -> set[str]:
    """Of all that cells read; trainings are made by whoever needs them."""
    units = (unit for cell in session.run.matrix.cells for unit in session.reads(cell, 1))
    return {entry_key(unit.kind, unit.recipe) for unit in units}


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_every_artefact_that_is_read_is_exactly_one_machine_s(n: int, tmp_path: Path) -> None:
    session = session_of(tmp_path)
    found = shares(session, n)
    read = read_keys(session)
    assert Counter(key for share in found for key in share.keys & read) == Counter(read)
    assert len(found) == n


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_every_cell_of_a_sequential_run_is_exactly_one_machine_s(n: int, tmp_path: Path) -> None:
    session = session_of(tmp_path, mode="sequential")
    found = shares(session, n)
    ids = Counter(cell.id for cell in session.run.matrix.cells)
    assert Counter(cell for share in found for cell in share.cells or ()) == ids


def test_shares_follow_from_settings_not_from_a_machine_s_store(tmp_path: Path) -> None:
    cold = session_of(tmp_path / "a")
    warm = fill(tmp_path / "b", **SMALL)
    record(warm.run.store.root, "images", "0" * 32, Timing(name="images", label="x", seconds=9e5))
    assert shares(cold, 3) == shares(warm, 3)


def test_a_fine_tuning_is_made_once_where_that_is_cheaper_than_to_share_its_images(
    tmp_path: Path,
) -> None:
    more = {"seeds": "0,1", "profiles": "standard", "languages": "en,es,fr"}
    session = session_of(tmp_path, attach="released", **more)
    found = shares(session, 2)
    tunings = {
        entry_key(unit.kind, unit.recipe)
        for cell in session.run.matrix.cells
        for unit in session.states.needs(cell.state)
        if unit.kind == "tuning"
    }
    assert len(tunings) == 4
    counted = Counter(key for share in found for key in share.keys & tunings)
    assert counted == Counter(tunings)


def load_of(jobs: dict[str, dict[str, float]], names: Iterable[str]) -> float:
    return sum({key: c for name in names for key, c in jobs[name].items()}.values())


@given(
    costs=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), min_size=1, max_size=20),
    n=st.integers(1, 6),
    shared=st.integers(0, 100),
)
def test_every_job_is_given_once_and_the_load_is_near_the_least(
    costs: list[tuple[int, int]], n: int, shared: int
) -> None:
    states = {str(i): str(state) for i, (state, _) in enumerate(costs)}
    jobs = {
        str(i): {f"own {i}": float(cost), f"of {state}": float(shared)}
        for i, (state, cost) in enumerate(costs)
    }
    given = split(jobs, states, n)
    assert sorted(name for names in given for name in names) == sorted(jobs)
    loads, everything = [load_of(jobs, names) for names in given], load_of(jobs, jobs)
    # whole states, longest first, are never worse than this
    of_state = [load_of(jobs, (n for n in jobs if states[n] == s)) for s in set(states.values())]
    assert max(loads) <= everything / n + max(of_state) + 1e-9


@pytest.mark.parametrize("bad", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_shares_that_cannot_be_are_refused(bad: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--spqr-shard: .*a share such as 1/4"):
        load_settings(tmp_path, {"shard": bad})
