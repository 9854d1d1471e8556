"""What the processes that share devices tell each other: who owns one, who works, what is missing.

::

    leases/HOST/DEVICE.lock         held by the device's owner
    leases/HOST/DEVICE.next         for whom the last owner left it
    leases/HOST/work/WHO-RUN.lock   held while a test of that process measures
    leases/HOST/asks/ASK.lock       held while a process waits; beside it ASK.json, what for

All locks are the kernel's (`store.leases`): what a killed process held is free, and what it said is
forgotten by the next who reads it. Devices are those of one machine, hence a folder for each, and
all runs on it share them; what is needed, and until when, each run knows of itself.
"""

from __future__ import annotations

import json
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from spqr_checks.store import leases


@dataclass(frozen=True, slots=True)
class Ask:
    """What a process waits for.

    Attributes:
        name: of this ask; no other has it.
        key: of the artefact; empty for the device itself.
        device: lease name of the device that the process may own itself.
        order: of the unit, as JSON; empty if only the process itself can make it.
        run: that the process belongs to.
        since: when it began to wait (``time.time()``).
    """

    name: str
    key: str
    device: str
    order: str
    run: str
    since: float


class Board:
    """One process's view; ``root`` is the store's folder, ``run`` an id of letters and digits."""

    def __init__(self, root: Path, run: str = "") -> None:
        self.run = "".join(filter(str.isalnum, run))
        host = "".join(c if c.isalnum() else "_" for c in platform.node()) or "here"
        self._folder = root / "leases" / host
        self._asks, self._work = self._folder / "asks", self._folder / "work"
        self._who = uuid.uuid4().hex[:12]
        self._mine: set[str] = set()

    def take(self, device: str) -> ExitStack | None:
        """Ownership of a device until the stack is closed; None if it is another's, or is to be."""
        if self._left_to_another(device):
            return None
        with ExitStack() as stack:
            try:
                self._asks.mkdir(parents=True, exist_ok=True)
                mine = stack.enter_context(leases.lease(self._folder, device, wait=False))
            except OSError:
                return ExitStack()  # in such a store nothing can be made, and it says why
            return stack.pop_all() if mine else None

    def leave_to(self, ask: Ask) -> None:
        """Has nobody but the process of an ask take the device next, as long as that waits."""
        (self._folder / f"{ask.device}.next").write_text(ask.name, encoding="utf-8")

    def _left_to_another(self, device: str) -> bool:
        try:
            name = (self._folder / f"{device}.next").read_text(encoding="utf-8")
        except OSError:
            return False
        return name not in self._mine and self.waits(name)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Says for the length of the ``with`` block that this process may need something soon."""
        with ExitStack() as stack:
            with suppress(OSError):  # a store that can only be read is enough where nothing is made
                self._work.mkdir(parents=True, exist_ok=True)
                name = f"{self._who}-{self.run}.lock"
                stack.enter_context(self._held(self._work / name))
            yield

    def others_work(self) -> bool:
        """Whether any other process of the run is at work."""
        paths = self._work.glob(f"*-{self.run}.lock")
        mine = f"{self._who}-{self.run}"
        return any(path.stem != mine and _is_held(path) for path in paths)

    @contextmanager
    def asking(self, key: str, device: str, order: str) -> Iterator[None]:
        """Asks for the length of the ``with`` block."""
        self._asks.mkdir(parents=True, exist_ok=True)
        name = f"{self._who}-{uuid.uuid4().hex[:8]}"
        ask = Ask(name, key, device, order, self.run, time.time())
        said = self._asks / f"{name}.json"
        self._mine.add(name)
        try:
            # said under the lock only: whoever reads what nobody holds takes it for a dead one's
            with self._held(said.with_suffix(".lock")):
                try:
                    said.write_text(json.dumps(asdict(ask)), encoding="utf-8")
                    yield
                finally:
                    said.unlink(missing_ok=True)
        finally:
            self._mine.discard(name)

    def asks(self) -> list[Ask]:
        """What the other processes wait for, in an order that does not change."""
        found = []
        for path in sorted(self._asks.glob("*.json")):
            if path.stem in self._mine or not self.waits(path.stem):
                continue
            with suppress(OSError, ValueError, TypeError):  # half written, or over
                found.append(Ask(**json.loads(path.read_text(encoding="utf-8"))))
        return found

    def waits(self, name: str) -> bool:
        """Whether the process of an ask still waits."""
        path = self._asks / f"{name}.lock"
        if path.is_file() and _is_held(path):
            return True
        path.with_suffix(".json").unlink(missing_ok=True)
        return False

    @contextmanager
    def _held(self, path: Path) -> Iterator[None]:
        while True:
            with leases.lock(path, wait=True):
                # a reader may have come between its making and its locking, and removed it
                if path.exists():
                    try:
                        yield
                    finally:
                        with suppress(OSError):
                            path.unlink()
                    return


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock; the file of one that ended without is removed.

    Names are used once, so nobody is about to lock a file that its holder left.
    """
    with leases.lock(path, wait=False) as free:
        if free:
            with suppress(OSError):
                path.unlink()
    return not free
