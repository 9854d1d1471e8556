"""Which entries runs have used, and what may go because no run that counts has.

::

    root/uses/RUN-PID-….txt     KIND/KEY, a line for each entry that a process of a run asked for
    root/uses/RUN-PID-….lock    locked by that process for as long as it runs

A line is written before the entry is looked at. So what a run at work has used is known at any
moment, also of one that is killed later, and is no garbage, whatever else is.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.store import leases
from spqr_checks.store.store import USES, Store, made, size_of

_LOG = re.compile(r"(\d+)-[0-9a-z-]+\.txt")
_DAY = 86_400.0


class Uses:
    """What one process of a run uses; noted from the first `note` to `close`.

    Args:
        started: when the run began (``time.time()``), which names it for all of its processes.
    """

    def __init__(self, root: Path, started: float) -> None:
        self._folder = root / USES
        self._name = f"{round(started * 1e6)}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._known: set[str] = set()
        self._held: ExitStack | None = None

    def note(self, kind: str, key: str) -> None:
        """An entry is used; a store that cannot be written to keeps no note of it."""
        entry = f"{kind}/{key}"
        if entry in self._known:
            return
        self._known.add(entry)
        with suppress(OSError):
            if self._held is None:
                self._open()
            os.write(self._log, f"{entry}\n".encode())

    def _open(self) -> None:
        self._held = held = ExitStack()
        self._folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(leases.lock(self._folder / f"{self._name}.lock", wait=True))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._log = os.open(self._folder / f"{self._name}.txt", flags, 0o666)
        held.callback(os.close, self._log)

    def close(self) -> None:
        """The process uses no more entries."""
        if self._held is not None:
            self._held.close()
            self._held = None


@dataclass
class _Log:
    """What a process has noted so far."""

    path: Path
    started: int
    entries: set[str] = field(default_factory=set)
    _read: int = 0

    def read_on(self) -> set[str]:
        """All entries that it names by now; a line that is half written counts as it will be."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
            self._read += len(whole + end)
            self.entries.update(whole.decode("ascii", "replace").splitlines())
        return self.entries

    @property
    def ended(self) -> bool:
        lock = self.path.with_suffix(".lock")
        try:
            with leases.lock(lock, wait=False) as abandoned:
                return abandoned
        except OSError:
            return False

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".lock").unlink(missing_ok=True)


@dataclass(frozen=True)
class Keep:
    """What counts: runs of the last so many days, or the last so many runs; one of both."""

    days: float | None = None
    runs: int | None = None

    @classmethod
    def parse(cls, text: str) -> Keep:
        """``30d`` or ``5``. Raises UserError."""
        if re.fullmatch(r"\d+(\.\d+)?d", text):
            return cls(days=float(text[:-1]))
        if re.fullmatch(r"[1-9]\d*", text):
            return cls(runs=int(text))
        raise UserError(f"--keep {text!r}: days, such as 30d, or a number of runs, such as 5")

    @property
    def said(self) -> str:
        """As in ``not used ...``."""
        if self.runs is not None:
            return f"by the last {self.runs} runs" if self.runs > 1 else "by the last run"
        return f"in the last {self.days:g} days"


@dataclass
class Garbage:
    """What no run that counts has used, found before anything is removed.

    Attributes:
        entries: kind, key and bytes of each.
        latest: what lies in the quarantine since before then (``time.time()``) goes too.
    """

    entries: list[tuple[str, str, int]]
    latest: float
    _working: list[_Log]
    _forgotten: list[_Log]

    @property
    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Number and bytes of the entries of each kind."""
        found: dict[str, list[int]] = {}
        for kind, _, size in self.entries:
            found.setdefault(kind, []).append(size)
        return {kind: (len(sizes), sum(sizes)) for kind, sizes in sorted(found.items())}

    def remove(self, store: Store) -> int:
        """Removes it, one entry after the other; returns how many entries went.

        What has come into use meanwhile stays, and so does what is being made. Each entry goes as a
        whole or not at all; killed at any moment and run again, the rest goes.
        """
        removed = 0
        for kind, key, _ in self.entries:
            # runs that have begun since are at work too
            if not any(f"{kind}/{key}" in log.read_on() for log in self._at_work(store)):
                removed += store.remove(kind, key)
        store.empty_quarantine(self.latest)
        for log in self._forgotten:
            log.remove()
        return removed

    def _at_work(self, store: Store) -> list[_Log]:
        known = {log.path for log in (*self._working, *self._forgotten)}
        self._working += [log for log in _logs(store) if log.path not in known]
        return self._working


def find_garbage(store: Store, keep: Keep) -> Garbage:
    """Entries that were neither used nor made within what is kept.

    Raises:
        UserError: no run has been noted, or fewer than are to be kept, so that nobody knows what
            the earlier ones used.
    """
    logs = sorted(_logs(store), key=lambda log: log.started)
    starts = sorted({log.started for log in logs})
    if len(starts) < (keep.runs or 1):
        raise UserError(
            f"{store.root} knows what {len(starts)} runs have used, fewer than "
            f"{keep.runs or 1}; nothing goes"
        )
    working = [log for log in logs if not log.ended]
    if keep.runs is not None:
        first = starts[-keep.runs]
        cutoff = first / 1e6
        counting = [log for log in logs if log.started >= first]
    else:
        cutoff = time.time() - (keep.days or 0) * _DAY
        counting = [log for log in logs if made(log.path) >= cutoff]
    kept: set[str] = set()
    for log in (*counting, *working):
        kept |= log.read_on()
    entries = [
        (kind, key, size_of(entry))
        for kind, key, entry in store.entries()
        if f"{kind}/{key}" not in kept and made(entry) < cutoff
    ]
    counted = {log.path for log in (*counting, *working)}
    return Garbage(entries, cutoff, working, [log for log in logs if log.path not in counted])


def _logs(store: Store) -> Iterator[_Log]:
    folder = store.root / USES
    if folder.is_dir():
        for name in os.listdir(folder):
            if found := _LOG.fullmatch(name):
                yield _Log(folder / name, int(found[1]))
