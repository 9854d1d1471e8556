"""What the store already says about a run's cells: which of them need nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

from spqr_checks.checks.session import Checks, MeasuringSession
from spqr_checks.errors import ElsewhereError, JudgeError, UserError
from spqr_checks.matrix import Cell
from spqr_checks.prompts.prompt import PromptGroup
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.measurements import Measurements
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.store.store import Store, entry_key

NONE = 0
"""The look of a cell for which nothing is made."""
_MISSING = (
    *(ElsewhereError, JudgeError, UserError),
    *(ArithmeticError, LookupError, OSError, TypeError, ValueError),
)
"""What measuring raises where something is not there or is damaged; the run finds out."""


class KnownCells:
    """Cells that can be measured from what is there. Makes, verifies and moves nothing.

    Raises:
        UserError: for a calibration of another judge.
    """

    def __init__(self, session: MeasuringSession) -> None:
        self._session = session
        self._last = session.run.settings.looks
        reading = Measurements(session.units, _Reader(session.run.store))
        self._checks = Checks(session.run, reading, session.calibration)
        self._result, self._held = cache(self._measured), cache(self._looks_held)
        self._drawable = cache(self._is_drawable)

    def look(self, cell: Cell, planned: int) -> int:
        """The look at which a cell is decided: `NONE` if a control says that it is not measured.

        What is decided stays so; what is not needs at least one look more than there is.
        """
        for control in self._session.run.matrix.control_of(cell):
            known = self._result(control)
            if known is not None and known.verdict != "pass":
                return NONE
        if self._last == 1 or not cell.row.sequential:
            return planned
        if self._result(cell) is not None:
            return max(1, self._held(cell))
        return max(planned, min(self._held(cell) + 1, self._last))

    def reads(self, cell: Cell, look: int) -> Iterator[Unit]:
        """As the session's, without prompts that the unaligned base is known not to draw."""
        if look == NONE:
            return iter(())
        one = cell.row.each_group
        return self._session.reads(cell, look, lambda draw: one or self._drawable(draw.group))

    def _is_drawable(self, group: PromptGroup) -> bool:
        try:
            return group.kind != "harmful" or self._checks.is_drawable(group)
        except _MISSING:
            return True

    def _measured(self, cell: Cell) -> CellResult | None:
        try:
            return self._checks.measure(cell)
        except _MISSING:
            return None

    def _looks_held(self, cell: Cell) -> int:
        """Up to which look there is all that the cell reads."""
        store = self._session.run.store
        for look in range(1, self._last + 1):
            units = self.reads(cell, look)
            if not all(store.holds(unit.kind, entry_key(unit.kind, unit.recipe)) for unit in units):
                return look - 1
        return self._last


class _Reader:
    """An engine that makes nothing and takes what is there for sound."""

    deadline: float | None = None

    def __init__(self, store: Store) -> None:
        self._store = store

    def require(self, unit: Unit) -> Path:
        key = entry_key(unit.kind, unit.recipe)
        if not self._store.holds(unit.kind, key):
            raise ElsewhereError(f"{unit.label} is not in the store")
        return self._store.entry(unit.kind, key)

    def at_work(self) -> AbstractContextManager[None]:
        return nullcontext()

    def claim(self) -> None:
        pass
