"""One share of a run: makes what belongs to it, reads what is there, and leaves the rest."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from spqr_checks.errors import ElsewhereError
from spqr_checks.runtime.engines import Engine, Unit
from spqr_checks.store.store import Store, entry_key


@dataclass(frozen=True)
class Share:
    """What one of several machines makes of a run.

    Attributes:
        said: ``2/4``.
        keys: of the artefacts.
        cells: ids of the cells that it measures to the end, however many images that takes; None
            where the number of images is fixed, so that all is known beforehand.
    """

    said: str
    keys: frozenset[str]
    cells: frozenset[str] | None

    def holds(self, unit: Unit) -> bool:
        """Whether a unit belongs to it."""
        return entry_key(unit.kind, unit.recipe) in self.keys


class ShardEngine:
    """Makes a share of the units.

    Args:
        engine: makes them, and what they need.
    """

    def __init__(self, engine: Engine, store: Store, share: Share) -> None:
        self.deadline = engine.deadline
        self._engine, self._store, self._share = engine, store, share
        self._all = False

    def turn_to(self, cell_id: str, reads: Iterable[Unit]) -> None:
        """Makes what of a cell's artefacts belongs to the share, before the cell is measured."""
        self._all = self._share.cells is not None and cell_id in self._share.cells
        if self._share.cells is None:
            for unit in filter(self._share.holds, reads):
                self._engine.require(unit)

    def require(self, unit: Unit) -> Path:
        """The artefact's folder.

        Raises:
            ElsewhereError: it is missing, and another share's.
        """
        if (found := self._store.path(unit.kind, unit.recipe)) is not None:
            return found
        if self._all:
            return self._engine.require(unit)
        raise ElsewhereError(f"left to another shard than {self._share.said}: {unit.label}")

    def at_work(self) -> AbstractContextManager[None]:
        """As the engine's own."""
        return self._engine.at_work()

    def claim(self) -> None:
        """As the engine's own."""
        self._engine.claim()
