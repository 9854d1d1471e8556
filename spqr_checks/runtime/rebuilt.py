"""A run on another machine, rebuilt from its settings to make units of it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.local import LocalEngine
from spqr_checks.runtime.engines.node import Node
from spqr_checks.runtime.engines.payloads import placed
from spqr_checks.runtime.orders import Order
from spqr_checks.runtime.run import Run
from spqr_checks.runtime.states import States
from spqr_checks.runtime.units import Units
from spqr_checks.store.manifest import DamagedError


class RunNode(Node):
    """Makes units of the run that its settings mean; it has one state at a time."""

    @cached_property
    def _units(self) -> Units:
        run = Run.from_settings(placed(self._told, self._root / "inputs", self.store.root))
        return Units(run, States(run))

    @cached_property
    def _engine(self) -> LocalEngine:
        run = self._units.run
        return LocalEngine(self.store, run.settings.device, run.settings.threads, tuple)

    def unit(self, order: str) -> Unit:
        """The unit that an order means here."""
        return self._units.ordered(Order.from_json(order))

    def engine(self, unit: Unit) -> Path:
        """Makes the unit; what it needs is here."""
        for need in unit.needs:
            if self.store.path(need.kind, need.recipe) is None:
                raise DamagedError(f"{need.label} is not there")
        return self._engine.require(unit)
