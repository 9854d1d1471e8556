"""Leases: who is building an artefact right now. One holder at a time, ended by the kernel.

A lease is an operating-system lock on ``KEY.lock``. The kernel gives it back when its holder ends
in whatever way, so a killed process blocks nobody and nothing has to be timed out. The lock files
are empty and stay: whoever removed one could not know who is just about to lock it, and two
processes would then hold "the same" lease on two files.

Beside it ``KEY.json`` says for progress displays what is being built, by whom and since when. It
decides nothing.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict

from filelock import BaseFileLock, FileLock, Timeout, UnixFileLock, WindowsFileLock


class Held(TypedDict):
    """One artefact being built. ``started`` is in seconds since the epoch."""

    key: str
    kind: str
    label: str
    pid: int
    started: float


@contextmanager
def lease(folder: Path, key: str, *, wait: bool) -> Iterator[bool]:
    """Hold the lease of a key for the length of the ``with`` block; yields whether it is ours.

    With ``wait`` it is always ours in the end. The folder must exist.

    Raises OSError(ENOLCK) where the file system has no locks that end with their process.
    """
    lock: BaseFileLock = FileLock(folder / f"{key}.lock")
    if not _acquire(lock, wait=wait):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _acquire(lock: BaseFileLock, *, wait: bool) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        pass
    except NotImplementedError as error:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), lock.lock_file) from error
    # without flock, filelock turns itself into a lock by existence, which outlives a killed holder
    if not isinstance(lock, UnixFileLock | WindowsFileLock):
        lock.release()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), lock.lock_file)
    if wait and not lock.is_locked:
        lock.acquire()
    return lock.is_locked


@contextmanager
def announced(folder: Path, key: str, kind: str, label: str) -> Iterator[None]:
    """Tell others what the holder of this lease is doing, for the length of the ``with`` block."""
    note = folder / f"{key}.json"
    said = Held(key=key, kind=kind, label=label, pid=os.getpid(), started=time.time())
    note.write_text(json.dumps(said), encoding="utf-8")
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink()


def held(folder: Path) -> list[Held]:
    """What is being built at the moment, longest first; forgets what killed processes left."""
    found = []
    for note in folder.glob("*.json"):
        # an incomplete or vanished note is one being written or removed: not worth a word
        with suppress(OSError, ValueError):
            with lease(folder, note.stem, wait=False) as abandoned:
                if abandoned:
                    note.unlink()
                    continue
            said: Held = json.loads(note.read_text(encoding="utf-8"))
            found.append(said)
    return sorted(found, key=lambda said: said["started"])
