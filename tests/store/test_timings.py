"""Timings: kept beside the entries, never in them, and never worth a failure."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spqr_checks.errors import UserError
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.local import LocalEngine
from spqr_checks.store.store import Store, entry_key
from spqr_checks.store.timings import FOLDER, Timing, Work, read, record

KEY = "ab" + 30 * "0"
TIMING = Timing(name="images", by="5 steps", base="b", images=24, label="aligned: x", seconds=1.5)


def unit(work: Callable[[], Work] | None = None, seconds: float = 0.0) -> Unit:
    def make(folder: Path) -> None:
        time.sleep(seconds)
        (folder / "value.txt").write_text("made")

    return Unit("things", {"n": 1}, "a thing", make, heavy=False, work=work)


def build(store: Store, one: Unit) -> Path:
    return LocalEngine(store, "cpu", 1, lambda: ()).require(one)


# ---- files -------------------------------------------------------------------------------------


def test_what_was_recorded_is_read_again_and_nothing_else_is_left(tmp_path: Path) -> None:
    other = Timing(name="alignment uce", label="uce on base", seconds=0.25)
    record(tmp_path, "images", KEY, TIMING)
    record(tmp_path, "alignment", KEY, other)
    assert read(tmp_path) == ([other, TIMING], [])
    files = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(files) == [f"timings/alignment/ab/{KEY}.json", f"timings/images/ab/{KEY}.json"]
    said = json.loads((tmp_path / files[0]).read_text())
    assert "steps" not in said  # what is unknown is left out


def test_a_store_without_timings_has_none(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere") == ([], [])


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": 1e300},
        {"seconds": "1.5"},
        {"seconds": True},
        {"seconds": None},
        {"images": 0},
        {"images": -3},
        {"images": 2.5},
        {"images": True},
        {"steps": "12"},
        {"name": None},
        {"label": 3},
        {"more": 1},
    ],
)
def test_a_file_that_holds_no_timing_is_named_and_ignored(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    record(tmp_path, "images", KEY, TIMING)
    path = tmp_path / FOLDER / "images" / "ab" / f"{KEY}.json"
    sound = json.loads(path.read_text())
    path.write_text(json.dumps(sound | change))
    assert read(tmp_path) == ([], [path])
    path.write_text(json.dumps(sound))
    assert read(tmp_path) == ([TIMING], [])


@given(content=st.binary(max_size=60) | st.just(b"[" * 60_000) | st.just(b"1" * 70_000))
def test_no_content_of_a_file_makes_reading_fail(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("store")
    path = root / FOLDER / "images" / "ab" / f"{KEY}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert read(root) == ([], [path])


def test_a_folder_in_the_place_of_a_file_is_named_and_ignored(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / "images" / "ab" / f"{KEY}.json"
    path.mkdir(parents=True)
    assert read(tmp_path) == ([], [path])


def test_where_nothing_can_be_written_nothing_is_kept_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    record(tmp_path, "images", KEY, TIMING)
    assert read(tmp_path) == ([], [])
    record(tmp_path / FOLDER, "images", KEY, TIMING)


def test_a_full_disk_leaves_no_half_of_a_timing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    record(tmp_path, "images", KEY, TIMING)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_times_that_are_none_cannot_be_made() -> None:
    with pytest.raises(ValidationError):
        Timing(name="images", label="", seconds=-0.5)


# ---- the store ---------------------------------------------------------------------------------


def test_the_store_takes_timings_for_no_kind_of_artefact(store: Store) -> None:
    entry = store.build("images", {"n": 1}, lambda p: (p / "a.txt").write_text("x") and None)
    assert entry is not None
    before = store.usage()
    record(store.root, "images", entry.name, TIMING)
    record(store.root, "images", KEY, TIMING)
    assert store.usage() == before
    assert store.verify() == []
    assert store.prune(["timings", "images"]) == 1
    assert len(read(store.root)[0]) == 2
    with pytest.raises(ValueError, match="timings"):
        entry_key("timings", {"n": 1})


def test_whether_an_entry_is_there_is_told_without_reading_it(store: Store) -> None:
    key = entry_key("images", {"n": 1})
    assert not store.holds("images", key)
    assert not store.root.exists()
    entry = store.build("images", {"n": 1}, lambda p: (p / "a.txt").write_text("x") and None)
    assert entry is not None
    assert store.holds("images", key)
    (entry / "a.txt").write_text("damaged")
    assert store.holds("images", key)
    assert not (store.root / "quarantine").exists()


# ---- the engine --------------------------------------------------------------------------------


def test_the_engine_keeps_the_seconds_of_what_it_makes_outside_the_entry(store: Store) -> None:
    work = Work(name="things", by="hand", base="b", steps=7)
    one = unit(lambda: work, seconds=0.05)
    entry = build(store, one)
    ((timing,), unusable) = read(store.root)
    assert unusable == []
    assert timing.seconds >= 0.05
    assert timing == Timing(**dict(work), label="a thing", seconds=timing.seconds)
    assert (store.root / FOLDER / "things" / entry.name[:2] / f"{entry.name}.json").is_file()
    names = {path.name for path in entry.iterdir()}
    assert names == {"value.txt", "recipe.json", "manifest.json"}


def test_what_is_there_already_is_not_timed(store: Store) -> None:
    store.build("things", {"n": 1}, unit().make)
    build(store, unit())
    assert read(store.root) == ([], [])


def test_what_failed_is_not_timed(store: Store) -> None:
    def fail(folder: Path) -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        build(store, Unit("things", {"n": 1}, "a thing", fail, heavy=False))
    assert read(store.root) == ([], [])


def test_the_bytes_of_an_entry_do_not_depend_on_how_long_it_took(tmp_path: Path) -> None:
    slow, fast = (build(Store(tmp_path / str(s)), unit(seconds=s)) for s in (0.05, 0.0))
    assert {p.name: p.read_bytes() for p in slow.iterdir()} == {
        p.name: p.read_bytes() for p in fast.iterdir()
    }


def test_no_build_fails_for_its_timing(store: Store) -> None:
    def unknown() -> Work:
        raise UserError("the captions are gone")

    def impossible() -> Work:
        return Work(name="things", steps=0)

    for work in (unknown, impossible):
        assert build(store, unit(work)).is_dir()
        assert store.prune(["things"]) == 1
    (store.root / FOLDER).write_text("in the way")
    assert build(store, unit()).is_dir()
