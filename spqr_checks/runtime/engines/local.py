"""Runs units on this machine, in the process that asks, beside any number of other processes.

There is no scheduler. A process that needs an artefact which another one is building makes
something else that is still missing; leases in the store keep any two from making the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from spqr_checks.errors import BudgetError, UserError
from spqr_checks.runtime.engines import Unit
from spqr_checks.store import leases
from spqr_checks.store.store import Store, entry_key
from spqr_checks.store.timings import Timing, Work, record

_PAUSE = 0.05


class LocalEngine:
    """Makes units in this process.

    Args:
        store: where artefacts are kept.
        device: generation and training on anything but ``cpu`` take turns, one process at a
            time for each device.
        threads: torch threads of a job; part of what decides an artefact's bytes.
        backlog: all units of the run, asked for when there is time to spare.
        deadline: time (``time.time()``) after which nothing new is begun; None: no such time.
    """

    def __init__(
        self,
        store: Store,
        device: str,
        threads: int,
        backlog: Callable[[], Iterable[Unit]],
        deadline: float | None = None,
    ) -> None:
        self.deadline = deadline
        self._store, self._device, self._threads = store, device, threads
        self._make_backlog = backlog
        self._backlog: list[Unit] | None = None

    def require(self, unit: Unit) -> Path:
        """The artefact's folder, made now if it is missing.

        Raises:
            BudgetError: it is missing, and the deadline is over.
        """
        while True:
            if (found := self._there(unit)) is not None:
                return found
            for need in unit.needs:
                self.require(need)
            if (made := self._build(unit)) is not None:
                return made
            if not self._help():
                time.sleep(_PAUSE)

    def _build(self, unit: Unit) -> Path | None:
        if self.deadline is not None and time.time() >= self.deadline:
            raise BudgetError(f"the budget was spent before {unit.label} could be made")
        took: list[float] = []

        def make(folder: Path) -> None:
            with self._device_lease(unit), self._fixed_threads(unit):
                start = time.monotonic()
                unit.make(folder)
                took.append(time.monotonic() - start)

        made = self._store.build(unit.kind, unit.recipe, make, wait=False, label=unit.label)
        if made is not None and took:
            self._keep_time(unit, took[0])
        return made

    def _keep_time(self, unit: Unit, seconds: float) -> None:
        # the artefact is there; nothing about its time may spoil that
        with suppress(UserError, ValueError):
            work = Work(name=unit.kind) if unit.work is None else unit.work()
            timing = Timing(**dict(work), label=unit.label, seconds=seconds)
            record(self._store.root, unit.kind, entry_key(unit.kind, unit.recipe), timing)

    def _there(self, unit: Unit) -> Path | None:
        return self._store.path(unit.kind, unit.recipe)

    def _help(self) -> bool:
        """Makes one missing unit whose needs are met; False if there is none to be had."""
        if self._backlog is None:
            self._backlog = list(self._make_backlog())
        waiting: list[Unit] = []
        for position, unit in enumerate(self._backlog):
            if self._there(unit):
                continue
            if all(map(self._there, unit.needs)) and self._build(unit) is not None:
                self._backlog = waiting + self._backlog[position + 1 :]
                return True
            waiting.append(unit)
        self._backlog = waiting
        return False

    def _device_lease(self, unit: Unit) -> AbstractContextManager[object]:
        device = self._device if unit.device is None else unit.device
        if device == "cpu" or not unit.heavy:
            return nullcontext()
        folder = self._store.root / "leases"
        folder.mkdir(parents=True, exist_ok=True)
        return leases.lease(folder, f"device-{device.replace(':', '_')}", wait=True)

    @contextmanager
    def _fixed_threads(self, unit: Unit) -> Iterator[None]:
        """Sums depend on how many threads share them, so the number never varies."""
        if not unit.heavy:
            yield
            return
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
