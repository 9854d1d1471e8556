"""A run whose artefacts are made on a cluster before anything is measured here.

What cells read is asked for look by look: all of the first, then, of cells that are not decided
yet, the next. Whatever could not be made is an error where a cell asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import BudgetError, ElsewhereError, GuardError, JudgeError, UserError
from spqr_checks.matrix import Cell
from spqr_checks.runtime.engines import Engine, Unit
from spqr_checks.runtime.engines.payloads import Failures, inputs
from spqr_checks.runtime.engines.shard import ShardEngine, Share
from spqr_checks.store.store import Store, entry_key


def make_all(
    session: MeasuringSession, deadline: float | None, say: Callable[[str], None] = print
) -> Failures:
    """Makes on the run's cluster all that its cells read; returns what could not be made.

    Raises:
        UserError: for a cluster that is not there, and one without a node that could help.
    """
    from spqr_checks.runtime.engines.ray import Fleet
    from spqr_checks.runtime.rebuilt import RunNode

    wanted = Wanted(session)
    if not list(wanted()):
        return {}
    told, files = inputs(session.run.settings)
    address = session.run.settings.ray_address
    about = session.run.store, address, told, files
    fleet = Fleet(*about, node=RunNode, say=say, deadline=deadline)
    wanted.failed = fleet.failed
    try:
        return dict(fleet.make(wanted))
    finally:
        fleet.close()


class Wanted:
    """Units that the run's cells read next and that are missing.

    Attributes:
        failed: what could not be made, which nobody waits for.
    """

    def __init__(self, session: MeasuringSession) -> None:
        self._session = session
        self._reading = MeasuringSession(session.run)
        nothing = Share("0/0", frozenset(), None)
        self._reading.use(ShardEngine(self._reading.local(tuple), session.run.store, nothing))
        self._left = list(session.run.matrix.cells)
        self.failed: Failures = {}

    def __call__(self) -> Iterator[Unit]:
        """Each once, what it needs before it."""
        found: dict[str, Unit] = {}
        self._left = [cell for cell in self._left if self._asks(cell, found)]
        yield from found.values()

    def _asks(self, cell: Cell, found: dict[str, Unit]) -> bool:
        """Notes what a cell lacks at its next look; whether it is still to be measured."""
        cells = (*self._session.run.matrix.control_of(cell), cell)
        if any([self._note(each, 1, found) for each in cells]):  # noqa: C419  every one is noted
            return True
        for each in cells:
            try:
                result = self._reading.measure(each)
            except ElsewhereError:
                looks = range(1, self._session.run.settings.looks + 1)
                return any(self._note(each, look, found) for look in looks)
            except Exception:
                return False  # said where the cell is measured
            if each is not cell and result.verdict != "pass":
                return False
        return False

    def _note(self, cell: Cell, look: int, found: dict[str, Unit]) -> bool:
        """Notes what is missing at a look; False for nothing, and where something has failed."""
        units = list(self._session.reads(cell, look))
        if any(entry_key(unit.kind, unit.recipe) in self.failed for unit in units):
            return False
        return any([self._note_unit(unit, found) for unit in units])  # noqa: C419

    def _note_unit(self, unit: Unit, found: dict[str, Unit]) -> bool:
        key = entry_key(unit.kind, unit.recipe)
        if key in found:
            return True
        if self._session.run.store.holds(unit.kind, key):
            return False
        for need in unit.needs:
            self._note_unit(need, found)
        found[key] = unit
        return True


class MadeElsewhere:
    """Reads what a cluster made; what it could not make is an error, with the node's words.

    What nobody could know of beforehand, such as users' own checks, is made here.
    """

    def __init__(self, engine: Engine, store: Store, failed: Failures) -> None:
        self.deadline = engine.deadline
        self._engine, self._store, self._failed = engine, store, failed

    def require(self, unit: Unit) -> Path:
        """The artefact's folder.

        Raises:
            UserError, JudgeError, RuntimeError: as the node did that tried to make it.
        """
        kinds: dict[str, type[Exception]] = {
            "UserError": UserError,
            "JudgeError": JudgeError,
            "GuardError": GuardError,
            "BudgetError": BudgetError,
        }
        if (found := self._store.path(unit.kind, unit.recipe)) is not None:
            return found
        failed = self._failed.get(entry_key(unit.kind, unit.recipe))
        if failed is not None:
            raise kinds.get(failed[0], RuntimeError)(failed[1])
        return self._engine.require(unit)

    def at_work(self) -> AbstractContextManager[None]:
        """As the engine's own."""
        return self._engine.at_work()

    def claim(self) -> None:
        """As the engine's own."""
        self._engine.claim()
