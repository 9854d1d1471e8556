"""Damaged entries are noticed, put aside and rebuilt."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import RECIPE, built, contents, fresh_store, refuse

from spqr_checks.store import manifest
from spqr_checks.store.store import Store, StoreWarning


def damage(entry: Path, data: st.DataObject) -> None:
    """Change an entry in some way at some place."""
    name = data.draw(st.sampled_from(sorted(contents(entry))), label="file")
    content = bytearray((entry / name).read_bytes())
    ways = ["flip", "truncate", "append", "remove", "extra", "rename", "link", "folder"]
    way = data.draw(st.sampled_from(ways), label="way")
    if way == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        (entry / name).write_bytes(content)
    elif way == "truncate":
        (entry / name).write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    elif way == "append":
        (entry / name).write_bytes(content + data.draw(st.binary(min_size=1, max_size=3)))
    elif way == "remove":
        (entry / name).unlink()
    elif way == "extra":
        (entry / name).with_name("extra").write_bytes(data.draw(st.binary(max_size=3)))
    elif way == "rename":
        (entry / name).rename((entry / name).with_name("other"))
    elif way == "link":
        (entry / name).rename(entry.parent / "moved")
        (entry / name).symlink_to(entry.parent / "moved")
    elif way == "folder":
        (entry / name).unlink()
        (entry / name).mkdir()


@pytest.mark.heavy
@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_any_damage_is_noticed_quarantined_and_rebuilt_alike(
    data: st.DataObject, same_process: bool
) -> None:
    with fresh_store() as store:
        entry = built(store)
        before = contents(entry)
        neighbour = built(store, {"other": 1})
        damage(entry, data)
        damaged = contents(entry)
        if not same_process:
            manifest.forget()
        with pytest.warns(StoreWarning, match=entry.name) as warned:
            assert store.path("state", RECIPE) is None
        assert len(warned) == 1
        (away,) = (store.root / "quarantine").iterdir()
        assert contents(away) == damaged
        assert not entry.exists()
        assert built(store) == entry
        assert contents(entry) == before
        assert store.path("state", {"other": 1}) == neighbour


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_building_meets_damage_as_reading_does(data: st.DataObject) -> None:
    with fresh_store() as store:
        entry = built(store)
        before = contents(entry)
        damage(entry, data)
        manifest.forget()
        with pytest.warns(StoreWarning, match="will be rebuilt"):
            assert built(store) == entry
        assert contents(entry) == before


def test_damage_that_keeps_size_and_times_is_found_by_the_next_process(store: Store) -> None:
    entry = built(store)
    weights = entry / "weights.bin"
    times = weights.stat().st_atime_ns, weights.stat().st_mtime_ns
    with weights.open("r+b") as file:
        file.write(b"x")
    os.utime(weights, ns=times)
    manifest.forget()
    with pytest.warns(StoreWarning, match=r"weights\.bin"):
        assert store.path("state", RECIPE) is None


def test_an_entry_in_the_place_of_another_is_damage(store: Store) -> None:
    entry, other = built(store), built(store, {"other": 1})
    shutil.rmtree(entry)
    shutil.copytree(other, entry)
    with pytest.warns(StoreWarning, match="another entry"):
        assert store.path("state", RECIPE) is None


def test_an_empty_folder_or_a_file_in_the_place_of_an_entry_is_damage(store: Store) -> None:
    entry = built(store)
    for put in (entry.mkdir, entry.touch):
        shutil.rmtree(entry)
        put()
        with pytest.warns(StoreWarning, match="will be rebuilt"):
            assert built(store) == entry


def test_repeated_damage_never_overwrites_the_quarantine(store: Store) -> None:
    for _ in range(3):
        (built(store) / "weights.bin").unlink()
        with pytest.warns(StoreWarning, match="damaged"):
            assert store.path("state", RECIPE) is None
    assert store.usage()["quarantine"][0] == 3


def test_damage_is_not_touched_while_somebody_else_holds_the_lease(store: Store) -> None:
    """He is rebuilding it already; what lies there after a moment may be sound."""
    entry = built(store)
    (entry / "weights.bin").unlink()
    with (store.root / "leases" / f"{entry.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert store.path("state", RECIPE) is None
        assert store.build("state", RECIPE, refuse, wait=False) is None
        assert entry.exists()
    with pytest.warns(StoreWarning, match="damaged"):
        assert store.path("state", RECIPE) is None
    assert not entry.exists()


def test_files_are_hashed_once_per_process_until_they_change(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = built(store)
    hashed = []
    hashing = manifest._written_anew

    def counting(entry: Path, *args: Any) -> bytes:
        hashed.append(entry)
        return hashing(entry, *args)

    monkeypatch.setattr(manifest, "_written_anew", counting)
    for _ in range(3):
        assert store.path("state", RECIPE) == entry
    assert hashed == []  # the builder has just hashed them
    manifest.forget()
    for _ in range(3):
        assert Store(store.root).path("state", RECIPE) == entry
    assert hashed == [entry]
    os.utime(entry / "weights.bin", ns=(0, 0))
    assert store.path("state", RECIPE) == entry
    assert hashed == [entry, entry]


def test_trouble_that_says_nothing_about_the_content_quarantines_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = built(store)
    manifest.forget()

    def too_many(*args: Any) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "_written_anew", too_many)
        with pytest.raises(OSError, match="Too many open files"):
            store.path("state", RECIPE)
    assert store.path("state", RECIPE) == entry
