"""Folders and disks that a store cannot work with."""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import RECIPE, built, refuse

from spqr_checks.errors import UserError
from spqr_checks.store import manifest
from spqr_checks.store.store import Store, StoreWarning


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_store_in_the_place_of_a_file_is_a_users_error(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    store = Store(tmp_path / place)
    assert store.path("state", RECIPE) is None
    uses: list[Callable[[], object]] = [store.check, lambda: store.build("state", RECIPE, refuse)]
    for use in uses:
        with pytest.raises(UserError, match="must be a folder.*choose another") as caught:
            use()
        assert str(tmp_path / place) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "kept"


def forbids(folder: Path) -> bool:
    """Root is allowed everything."""
    return not os.access(folder, os.W_OK)


def test_a_folder_without_write_permission_is_a_users_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        if not forbids(tmp_path):
            pytest.skip("permissions do not bind this user")
        store = Store(tmp_path / "store")
        uses: list[Callable[[], object]] = [store.check, lambda: built(store)]
        for use in uses:
            with pytest.raises(UserError, match="permissions or choose another"):
                use()
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_store_that_cannot_be_written_serves_what_is_sound_and_never_what_is_damaged(
    code: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, damaged = built(store), built(store, {"other": 1})
    (damaged / "weights.bin").unlink()

    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "rename", forbidden)
    assert store.build("state", RECIPE, refuse) == entry
    with pytest.warns(StoreWarning, match="not used") as warned:
        found = [store.path("state", {"other": 1}) for _ in range(3)]
    assert found == [None] * 3
    assert len(warned) == 1
    with pytest.raises(UserError, match="permissions or choose another"):
        store.build("state", {"other": 1}, refuse)
    with pytest.raises(UserError, match="permissions or choose another"):
        store.remove("state", entry.name)


def test_a_store_that_may_not_be_read_is_a_users_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = built(store)
    manifest.forget()

    def forbidden(*args: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(UserError, match="cannot be read"):
        store.path("state", RECIPE)
    assert entry.exists()


def full_disk(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"w")
    with open("/dev/full", "wb", buffering=0) as device:
        device.write(b"x")


def full_disk_in_words(folder: Path) -> None:
    raise RuntimeError("I/O error: No space left on device (os error 28)")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("make", [full_disk, full_disk_in_words])
def test_a_full_disk_is_a_users_error_with_a_remedy(
    make: Callable[[Path], None], store: Store
) -> None:
    with pytest.raises(UserError, match="no space left.*free some") as caught:
        store.build("state", RECIPE, make)
    assert caught.value.__cause__ is not None
    assert store.path("state", RECIPE) is None
    assert list((store.root / "tmp").iterdir()) == []


def test_a_disk_that_fills_while_the_entry_is_finished_publishes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="no space left"):
            built(store)
    assert store.path("state", RECIPE) is None
    assert built(store).exists()


def test_a_file_system_without_locks_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks by existence would outlive a killed process and stop every later run."""

    def missing(*args: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="no file locks.*local disk"):
            store.build("state", RECIPE, refuse)


def test_check_passes_for_a_folder_yet_to_be_made_and_makes_nothing(tmp_path: Path) -> None:
    Store(tmp_path / "a" / "b").check()
    assert list(tmp_path.iterdir()) == []


def test_a_relative_root_does_not_move_with_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("store"))
    entry = built(store)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.path("state", RECIPE) == entry
    assert entry == store.root / store.place("state", entry.name)
