"""Leases: who is building an artefact right now. One holder at a time, ended by the kernel.

A lease is an operating-system lock (flock(2); LockFile on Windows) on ``KEY.lock``. It belongs to
one open file description, so a second one is refused in the same process too, and the kernel gives
it back when its holder ends in whatever way. That a folder's locks are such locks is tried out
before the first is relied upon. The lock files are empty and stay: whoever removed one could not
know who is just about to lock it. Beside it ``KEY.json`` says for progress displays what is being
built; it decides nothing.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TypedDict

_PAUSE = 0.05
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}

_open: set[IO[bytes]] = set()


def _forget() -> None:
    # a forked child has copies of the descriptors: they would hold the locks beyond their holder
    for file in _open:
        file.close()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


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
    with lock(folder / f"{key}.lock", wait=wait) as mine:
        yield mine


@contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """The same for a file that is there for nothing but being locked."""
    _prove(path.parent.absolute())
    with path.open("ab") as file:
        _open.add(file)
        try:
            yield _take(file, wait=wait)
        finally:
            _open.discard(file)


if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[bytes], *, wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except PermissionError:
                if not wait:
                    return False
                time.sleep(_PAUSE)
            else:
                return True

else:
    import fcntl

    def _take(file: IO[bytes], *, wait: bool) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise OSError(errno.ENOLCK, os.strerror(error.errno), str(file.name)) from error
            raise
        return True


@cache
def _prove(folder: Path) -> None:
    """Raise OSError(ENOLCK) unless locks there exclude others and end with their descriptor.

    Closing descriptors is what the kernel does for a killed process. Proved once per folder.
    """
    probe = folder / f"proof-{uuid.uuid4().hex}.lock"
    try:
        with probe.open("ab") as first, probe.open("ab") as second:
            excludes = _take(first, wait=False) and not _take(second, wait=False)
            first.close()
            proved = excludes and _take(second, wait=False)
    finally:
        probe.unlink(missing_ok=True)
    if not proved:
        raise OSError(
            errno.ENOLCK, "its locks do not exclude others, or outlive their holder", str(folder)
        )


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
