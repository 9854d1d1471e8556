"""Runs units on this machine, in the process that asks or in another one that shares the run.

There is no scheduler. A process that needs an artefact makes it, under the artefact's lease, so
that no two make the same. Among several workers each device has an owner besides: the one that
holds the device's lease, the only one that computes there. It takes the lease with the first unit
that it makes there, and keeps it until its test has ended and nothing that the others wait for,
or that the run needs, is missing. All that is missing it makes state by state: what is asked for
first, then what is known to be needed, then the next state. The others ask and wait. What the owner
cannot make, because it failed or only its asker knows how, it leaves to the asker, with the device:
errors are raised where they are asked for, and nobody waits for what nobody makes. Runs share
devices, not units: to another run the owner leaves a device once its turn is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from spqr_checks.errors import BudgetError, UserError
from spqr_checks.runtime.board import Ask, Board
from spqr_checks.runtime.devices import lease_name
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.queue import Queue
from spqr_checks.runtime.orders import Order
from spqr_checks.store import leases
from spqr_checks.store.store import Store, entry_key
from spqr_checks.store.timings import Timing, Work, record

_PAUSE = 0.05
_LONGEST = 0.3
"""Between two looks; they become rarer, since whoever waits takes time from who computes."""
_TURN = 30.0
"""Seconds that another run waits at most while this one goes on with what it has loaded."""
_BETWEEN_TESTS = 0.3
"""Seconds within which a worker that ended a test has begun the next."""


class LocalEngine:
    """Makes units in this process.

    Args:
        store: where artefacts are kept.
        device: of the run, as this process knows it. The processor as a whole (``cpu``) is free
            for everybody; on other devices one process computes at a time.
        threads: torch threads of a job; part of what decides an artefact's bytes.
        backlog: units that the run needs, asked for when there is time to spare.
        deadline: time (``time.time()``) after which nothing new is begun; None: no such time.
        ordered: the unit that another process's order means. With it, devices have owners; without,
            processes take turns at each unit.
        free: drops all that this process holds on devices; called before it gives one up.
        run: id of the run, which the processes that share it have in common.
        patience: seconds for which a device is left to others when one is first wanted.
    """

    def __init__(
        self,
        store: Store,
        device: str,
        threads: int,
        backlog: Callable[[], Iterable[Unit]],
        *,
        deadline: float | None = None,
        ordered: Callable[[Order], Unit] | None = None,
        free: Callable[[], None] = lambda: None,
        run: str = "",
        patience: float = 0.0,
    ) -> None:
        self.deadline = deadline
        self._store, self._lane, self._threads = store, lease_name(device), threads
        self._ordered, self._free = ordered, free
        self._queue = Queue(backlog, self._there)
        self._board = Board(store.root, run)
        self._owned: dict[str, ExitStack] = {}
        self._failed: set[str] = set()
        self._at_work = self._claimed = False
        self._state = ""
        self._holds = False
        self._patience = patience
        self._wanted_since: float | None = None

    def require(self, unit: Unit) -> Path:
        """The artefact's folder, made now if it is missing, here or by the device's owner.

        Raises:
            BudgetError: it is missing, and the deadline is over.
        """
        with ExitStack() as stack:
            asked, pause = False, _PAUSE
            while True:
                if (found := self._there(unit)) is not None:
                    return found
                for need in unit.needs:
                    self.require(need)
                if (made := self._build(unit)) is not None:
                    return made
                if self._ordered is not None and not asked:
                    order = unit.order.to_json() if unit.order is not None else ""
                    device = self._lane_of(unit) or self._lane
                    stack.enter_context(self._board.asking(_key(unit), device, order))
                    asked = True
                if self._help():
                    pause = _PAUSE
                else:
                    time.sleep(pause)
                    pause = min(_LONGEST, pause * 1.2)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A test that measures; after it, an owner makes what is missing, then gives devices up."""
        if self._ordered is None or self._at_work:
            yield
            return
        self._at_work = True
        try:
            with self._board.working():
                yield
        except Exception:
            self._serve()
            raise
        else:
            self._serve()
        finally:
            self._at_work = self._claimed = False
            self._give_up()

    def work_ahead(self) -> None:
        """Before the first test: if its device is free, owns it as one does after a test.

        What fails is not raised: whoever asks for it meets the error.
        """
        with suppress(Exception), self.at_work():
            self._owns(self._lane)

    def claim(self) -> None:
        """Waits until this process owns its device; it does until the test ends."""
        if self._ordered is None or not self._lane:
            return
        with self._board.asking("", self._lane, ""):
            while not self._owns(self._lane):
                if self._over():
                    raise BudgetError("the budget was spent before a pipeline could be loaded")
                # who owns the device may wait for one that this process owns
                if not (self._owned and self._help()):
                    time.sleep(_PAUSE)
        self._claimed = self._holds = True

    def _build(self, unit: Unit) -> Path | None:
        """The artefact, made now; None while it is another's to make."""
        if self._over():
            raise BudgetError(f"the budget was spent before {unit.label} could be made")
        if not self._owns(self._lane_of(unit)):
            return None
        took: list[float] = []

        def make(folder: Path) -> None:
            with self._turn(unit), self._fixed_threads(unit):
                self._holds |= unit.heavy
                start = time.monotonic()
                unit.make(folder)
                took.append(time.monotonic() - start)

        made = self._store.build(unit.kind, unit.recipe, make, wait=False, label=unit.label)
        if made is not None and took:
            self._state = unit.state or self._state
            self._keep_time(unit, took[0])
        return made

    def _keep_time(self, unit: Unit, seconds: float) -> None:
        # the artefact is there; nothing about its time may spoil that
        with suppress(UserError, ValueError):
            work = Work(name=unit.kind) if unit.work is None else unit.work()
            timing = Timing(**dict(work), label=unit.label, seconds=seconds)
            record(self._store.root, unit.kind, _key(unit), timing)

    def _there(self, unit: Unit) -> Path | None:
        return self._store.path(unit.kind, unit.recipe)

    def _over(self) -> bool:
        return self.deadline is not None and time.time() >= self.deadline

    # ---- what is made for others -----------------------------------------------------------------

    def _help(self) -> bool:
        """Makes one missing unit whose needs are met; False if there is none to be had.

        What fails here is not raised: whoever asks for it meets the error itself.
        """
        if not self._owns(self._lane) and not self._owned:
            return False
        wanted: list[Unit] = []
        later: list[Ask] = []
        for ask in self._board.asks() if self._owned else ():
            ours = ask.run == self._board.run
            if not ours and time.time() - ask.since < _TURN:
                later.append(ask)
                continue
            unit = self._asked(ask) if ours else None
            if unit is not None and self._there(unit):
                continue
            unit = unit and self._first_missing(unit)
            if unit is not None:
                wanted.append(unit)
            elif self._handed_over(ask):
                return True
        for unit in self._queue.after(self._state, wanted, self._can_begin):
            try:
                if self._build(unit) is not None:
                    return True
            except BudgetError:
                return False
            except Exception:
                self._failed.add(_key(unit))
                if self._ordered is None:
                    raise
        return any(map(self._handed_over, later))

    def _asked(self, ask: Ask) -> Unit | None:
        """What an ask is for; None if only its process knows."""
        assert self._ordered is not None
        try:
            unit = self._ordered(Order.from_json(ask.order)) if ask.order else None
        except Exception:  # the asker makes it itself, and meets the error
            return None
        return unit if unit is not None and _key(unit) == ask.key else None

    def _first_missing(self, unit: Unit) -> Unit | None:
        """The unit or, before that, what it needs; None if making it failed here."""
        while (need := next((n for n in unit.needs if not self._there(n)), None)) is not None:
            unit = need
        return None if _key(unit) in self._failed else unit

    def _can_begin(self, unit: Unit) -> bool:
        met = _key(unit) not in self._failed and all(map(self._there, unit.needs))
        return met and self._owns(self._lane_of(unit))

    def _serve(self) -> None:
        """As the owner of a device: makes what is missing until nobody is at work any more."""
        quiet_since: float | None = None
        self._claimed = False
        while self._owned and not self._over():
            if self._help():
                quiet_since = None
                continue
            if self._board.others_work():
                quiet_since = None
            elif quiet_since is None:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > _BETWEEN_TESTS:
                return
            time.sleep(_PAUSE)

    # ---- devices ---------------------------------------------------------------------------------

    def _lane_of(self, unit: Unit) -> str:
        if not unit.heavy:
            return ""
        return self._lane if unit.device is None else lease_name(unit.device)

    def _owns(self, lane: str) -> bool:
        """Whether this process may compute on a device; takes it if it can."""
        if not lane or self._ordered is None or lane in self._owned:
            return True
        if self._wanted_since is None:
            self._wanted_since = time.monotonic()
        if time.monotonic() - self._wanted_since < self._patience:
            return False
        taken = self._board.take(lane)
        if taken is not None:
            self._owned[lane] = taken
        return taken is not None

    def _give_up(self) -> None:
        """Drops what is on the devices, then their leases."""
        if self._owned and self._holds:
            self._free()
            self._holds = False
        while self._owned:
            self._owned.popitem()[1].close()

    def _handed_over(self, ask: Ask) -> bool:
        """Leaves an owned device to a process that has to make something itself; waits for it."""
        if self._claimed or ask.device not in self._owned:
            return False
        self._board.leave_to(ask)
        self._give_up()
        while self._board.waits(ask.name) and not self._over():
            time.sleep(_PAUSE)
        return True

    def _turn(self, unit: Unit) -> AbstractContextManager[object]:
        """The device for the length of one unit, where it has no owner."""
        lane = self._lane_of(unit)
        if not lane or self._ordered is not None:
            return nullcontext()
        folder = self._store.root / "leases"
        folder.mkdir(parents=True, exist_ok=True)
        return leases.lease(folder, f"device-{lane}", wait=True)

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


def _key(unit: Unit) -> str:
    return entry_key(unit.kind, unit.recipe)
