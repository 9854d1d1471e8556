"""What a run has yet to make, and in which order that can be made. Reads no artefact. Light."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from spqr_checks.checks.reads import read_by
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.matrix import Cell
from spqr_checks.runtime import workloads
from spqr_checks.runtime.engines.unit import Unit
from spqr_checks.store.store import entry_key
from spqr_checks.store.timings import Work


@dataclass(frozen=True, slots=True)
class Task:
    """One missing artefact; ``needs`` are the keys of those among the missing that come first."""

    work: Work
    needs: tuple[str, ...]

    @property
    def amount(self) -> int:
        """Images, or one alignment or fine-tuning."""
        return self.work.images or 1


@dataclass(frozen=True)
class Plan:
    """What is there and what is missing.

    Attributes:
        names: of the kinds of work, states first.
        there: how much of each kind the store holds.
        missing: by key; whatever a task needs stands before it.
    """

    names: tuple[str, ...]
    there: Counter[str]
    missing: dict[str, Task]

    @property
    def to_make(self) -> Counter[str]:
        """How much of each kind is missing."""
        total: Counter[str] = Counter()
        for task in self.missing.values():
            total[task.work.name] += task.amount
        return total


def plan(session: MeasuringSession, look: Callable[[Cell], int]) -> Plan:
    """All that measuring every cell reads, if each is decided at the look given.

    As the engine, this takes what an artefact needs for missing only if the artefact itself is: a
    fine-tuning whose images are all there is not done again.

    Raises:
        UserError: for a fine-tuning that cannot be done with these data.
    """
    planner = _Planner(session)
    for cell in session.run.matrix.cells:
        for unit in session.states.needs(cell.state):
            planner.note(unit)
    for cell in session.run.matrix.cells:
        for unit in read_by(session, cell, look(cell)):
            planner.require(unit)
            for need in unit.needs:
                planner.note(need)
    return Plan(tuple(sorted(planner.names, key=_rank)), planner.there, planner.missing)


def _rank(name: str) -> tuple[int, str]:
    order = (
        workloads.ALIGNING,
        workloads.TUNING,
        workloads.DRAWING,
        workloads.JUDGED,
        workloads.MATCHED,
        workloads.FEATURES,
    )
    return next((i for i, head in enumerate(order) if name.startswith(head)), len(order)), name


class _Planner:
    def __init__(self, session: MeasuringSession) -> None:
        self._store = session.run.store
        self._keys: dict[int, tuple[Unit, str]] = {}
        self._held: set[str] = set()
        self.names: dict[str, None] = {}
        self.there: Counter[str] = Counter()
        self.missing: dict[str, Task] = {}

    def _key(self, unit: Unit) -> str:
        # the unit is kept, so that no other can get its id
        if id(unit) not in self._keys:
            self._keys[id(unit)] = unit, entry_key(unit.kind, unit.recipe)
        return self._keys[id(unit)][1]

    def note(self, unit: Unit) -> bool:
        """Counts the unit if it is there; it may not be needed."""
        key = self._key(unit)
        if key in self._held:
            return True
        if key in self.missing:
            return False
        task = Task(_work(unit), ())
        self.names.setdefault(task.work.name)
        if not self._store.holds(unit.kind, key):
            return False
        self._held.add(key)
        self.there[task.work.name] += task.amount
        return True

    def require(self, unit: Unit) -> str | None:
        """Plans the unit and what it needs; its key, or None if it is there."""
        if self.note(unit):
            return None
        key = self._key(unit)
        if key not in self.missing:
            needs = [self.require(need) for need in unit.needs]
            self.missing[key] = Task(_work(unit), tuple(k for k in needs if k is not None))
        return key


def _work(unit: Unit) -> Work:
    return Work(name=unit.kind) if unit.work is None else unit.work()
