"""Leases are the kernel's locks, and a folder that has no such locks is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spqr_checks.store.leases import lease, lock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and kills processes")


def is_free(folder: Path) -> bool:
    with lease(folder, "key", wait=False) as mine:
        return mine


def forked(work: Callable[[Callable[[], None]], None]) -> int:
    """A child process that does some work; returns when the work has called what it is given."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(lambda: os.write(writing, b"x") and None)
        finally:
            os._exit(1)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)
    return child


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL


def test_a_second_file_description_is_refused_in_the_same_process_too(tmp_path: Path) -> None:
    with lease(tmp_path, "key", wait=False) as mine:
        assert mine
        assert not is_free(tmp_path)
        with lease(tmp_path, "other", wait=False) as another:
            assert another
    assert is_free(tmp_path)


def test_who_waits_gets_the_lease_when_the_holder_leaves(tmp_path: Path) -> None:
    got = threading.Event()

    def wait() -> None:
        with lease(tmp_path, "key", wait=True) as mine:
            assert mine
            got.set()

    waiting = threading.Thread(target=wait, daemon=True)
    with lease(tmp_path, "key", wait=True):
        waiting.start()
        assert not got.wait(0.1)
    assert got.wait(60)
    waiting.join(60)


def test_the_lease_of_a_killed_process_is_free(tmp_path: Path) -> None:
    def hold(ready: Callable[[], None]) -> None:
        with lease(tmp_path, "key", wait=False) as mine:
            if mine:
                ready()
                signal.pause()

    holder = forked(hold)
    assert not is_free(tmp_path)
    kill(holder)
    assert is_free(tmp_path)


def test_a_process_that_the_holder_forked_neither_keeps_the_lease_nor_ends_it(
    tmp_path: Path,
) -> None:
    with lease(tmp_path, "key", wait=False):
        child = forked(lambda ready: (ready(), signal.pause())[0])
        leaving = os.fork()
        if leaving == 0:
            os._exit(0)
        os.waitpid(leaving, 0)
        assert not is_free(tmp_path)
    try:
        assert is_free(tmp_path)
    finally:
        kill(child)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_a_system_that_says_it_has_no_locks_is_refused(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*args: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(OSError, match=os.strerror(code)) as caught, lock(tmp_path / "x", wait=True):
        pass
    assert caught.value.errno == errno.ENOLCK
    assert list(tmp_path.iterdir()) == []


def exclude_nobody(file: Any, operation: int) -> None:
    """Some network mounts: every lock is granted."""


def outlive(file: Any, operation: int) -> None:
    """A lock by existence: it is there until somebody takes it away."""
    try:
        os.close(os.open(f"{file.name}.taken", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        raise BlockingIOError from None


@pytest.mark.parametrize("flock", [exclude_nobody, outlive])
def test_locks_that_exclude_nobody_or_outlive_their_holder_are_refused(
    flock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):
        with (
            pytest.raises(OSError, match="do not exclude") as caught,
            lease(tmp_path, "key", wait=False),
        ):
            pass
        assert caught.value.errno == errno.ENOLCK


def test_a_folder_is_proved_once_and_nothing_is_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda *args: (calls.append(args), flock(*args))[1])
    assert is_free(tmp_path)
    assert len(calls) == 4
    assert is_free(tmp_path)
    assert len(calls) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["key.lock"]
