"""Run, states, units, engine and checks together, for one process that measures cells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Any

from spqr_checks.checks.adherence import UtilityChecks
from spqr_checks.checks.attacks import AttackChecks
from spqr_checks.checks.drift import RobustnessChecks
from spqr_checks.checks.judge_error import Correction
from spqr_checks.checks.stopping import Stopping, not_measurable
from spqr_checks.checks.suppression import SafetyChecks
from spqr_checks.matrix import Cell, Draw
from spqr_checks.runtime.devices import Worker, devices, own_device, place_of
from spqr_checks.runtime.engines import Engine, Unit
from spqr_checks.runtime.engines.local import LocalEngine
from spqr_checks.runtime.engines.shard import ShardEngine, Share
from spqr_checks.runtime.measurements import Measurements
from spqr_checks.runtime.run import Run
from spqr_checks.runtime.states import States
from spqr_checks.runtime.units import Batch, Units
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.completeness import MEASURED
from spqr_checks.statistics.calibration import Calibration
from spqr_checks.store.store import entry_key
from spqr_checks.tools.calibration.file import calibration_of
from spqr_checks.user_files import path_of

_HEAD_START = 0.3
"""Seconds for which devices are left to the processes that load libraries beforehand."""


class Checks:
    """Measures the cells of one run; a cell's controls are measured with it.

    Args:
        calibration: how often the run's judge errs, if that is known.
        stopping: how verdicts are reached; if not given, as the settings say.
    """

    def __init__(
        self,
        run: Run,
        measurements: Measurements,
        calibration: Calibration | None = None,
        stopping: Stopping | None = None,
    ) -> None:
        self._run = run
        scored = [cell.attack is None for cell in run.matrix.cells if not cell.is_control]
        self._stopping = stopping or Stopping(run.settings, sum(scored))
        # attacked cells are a family of their own, so that attacks change nothing else
        apart = stopping or Stopping(run.settings, len(scored) - sum(scored))
        correction = Correction(run.settings, self._stopping, calibration)
        safety = SafetyChecks(run, measurements, self._stopping, self.measure, correction)
        utility = UtilityChecks(run, measurements, self._stopping)
        robustness = RobustnessChecks(run, measurements, self._stopping, safety)
        attacks = AttackChecks(run, measurements, apart, safety)
        self.functions = {
            **safety.functions,
            **utility.functions,
            **robustness.functions,
            **attacks.functions,
        }
        self.is_drawable = safety.is_drawable
        self._results: dict[Cell, CellResult] = {}

    def measure(self, cell: Cell) -> CellResult:
        """Measures one cell, making whatever artefacts are still missing."""
        if cell not in self._results:
            controls = map(self.measure, self._run.matrix.control_of(cell))
            unmet = next((control for control in controls if control.verdict != "pass"), None)
            if unmet is None:
                measure = partial(self.functions[cell.check], cell)
                result = self._stopping.until_decided(measure, cell.row.sequential)
            else:
                result = not_measurable(cell, self._run.settings.threshold(cell), unmet.reason)
            if result.verdict in MEASURED:
                about = {"about": self._run.settings.about}
                result = replace(result, details={**result.details, **about})
            self._results[cell] = result
        return self._results[cell]


class MeasuringSession:
    """What a test process measures with.

    Args:
        deadline: when its time is over (``time.time()``); see `LocalEngine`.
        worker: which of several processes this is, among which devices have owners; None if it is
            the only one.

    Attributes:
        computes: whether this process is one of those that devices are left to first.
        selected: ids of the cells that the run measures; None: all.
    """

    def __init__(
        self, run: Run, deadline: float | None = None, worker: Worker | None = None
    ) -> None:
        device = run.settings.device
        self.computes = worker is None or worker.number < len(devices(run.settings, worker.workers))
        if worker is not None or run.settings.devices:
            device = own_device(run.settings, worker or Worker(0, 1))
            place = {"device": place_of(device)}
            run = replace(run, settings=run.settings.model_copy(update=place))
        self.run = run
        self.states = States(run)
        self.units = Units(run, self.states)
        self.share: Share | None = None
        self.selected: Collection[str] | None = None
        self._device, self._deadline = device, deadline
        self._ordered = None if worker is None else self.units.ordered
        self._run_id = "" if worker is None else worker.run
        self._makes = self.local(self.backlog)
        self.use(self._makes)

    def local(self, backlog: Callable[[], Iterable[Unit]]) -> LocalEngine:
        """What makes units here; ``backlog`` is what it may make besides what it is asked for."""
        return LocalEngine(
            *(self.run.store, self._device, self.run.settings.threads, backlog),
            deadline=self._deadline,
            ordered=self._ordered,
            free=self.units.free,
            run=self._run_id,
            patience=0.0 if self.computes else _HEAD_START,
        )

    def use(self, engine: Engine) -> None:
        """Measures with this engine from now on."""
        self.engine = engine
        self.measurements = Measurements(self.units, engine)
        self.__dict__.pop("checks", None)

    def take(self, share: Share) -> None:
        """Makes nothing but a share of the run from now on."""
        self.share = share
        self._makes = self.local(lambda: filter(share.holds, self.backlog()))
        self.use(ShardEngine(self._makes, self.run.store, share))

    def work_ahead(self) -> None:
        """Before the first test: what owns a device makes what the run needs."""
        self._makes.work_ahead()

    def backlog(self) -> Iterator[Unit]:
        """What every selected cell needs at its first look, weights first; needs before a unit."""
        cells = self.run.matrix.cells
        if self.selected is not None:
            mine = [cell for cell in cells if cell.id in self.selected]
            controls = [c for cell in mine for c in self.run.matrix.control_of(cell)]
            cells = tuple(dict.fromkeys([*mine, *controls]))
        read = _with_needs(unit for cell in cells for unit in self.reads(cell, 1))
        yield from (read.pop(key) for key in _with_needs(self.units.weights()) if key in read)
        yield from read.values()

    def note_weights(self) -> None:
        """Counts all weights of the run as used (see `store.uses`).

        A run whose images exist does not read them, but they cost most, and what is drawn next
        needs them.
        """
        note = self.run.store.used
        assert note is not None
        for key, unit in _with_needs(self.units.weights()).items():
            note(unit.kind, key)

    @cached_property
    def calibration(self) -> Calibration | None:
        """How often the judge errs, if that is known; UserError if it is of another judge."""
        if not self.run.settings.calibration:
            return None  # and the judge's files are not looked at yet
        return calibration_of(path_of(self.run.settings.calibration), self.units.judge_recipe)

    @cached_property
    def checks(self) -> Checks:
        """What measures cells; errors as of ``calibration``."""
        return Checks(self.run, self.measurements, self.calibration)

    def measure(self, cell: Cell) -> CellResult:
        """Measures one cell; errors pass through, since an error is never a verdict.

        Raises:
            ElsewhereError: something that it reads is another shard's to make.
        """
        with self.engine.at_work():
            if isinstance(self.engine, ShardEngine):
                self.engine.turn_to(cell.id, self.reads(cell, 1))
            result = self.checks.measure(cell)
            self.measurements.show(result.images)
            return result

    def reads(
        self, cell: Cell, look: int, drawn: Callable[[Draw], bool] | None = None
    ) -> Iterator[Unit]:
        """Units that measuring a cell at some look (and at those before it) asks the engine for.

        Cells whose controls do not hold ask for fewer.

        Args:
            drawn: which of the cell's draws it reads, if not all.
        """
        units, settings, row = self.units, self.run.settings, cell.row
        read: Callable[[Batch], Unit] = {
            "verdicts": units.verdicts,
            "alignment": units.alignment,
            "features": units.features,
        }[row.reads]
        if row.data == "reference":
            yield units.dataset_features(settings.reference, settings.images_reference)
        if row.data == "tuning":
            yield units.dataset_features(*self.run.learned_by(cell.state))
        for draw in filter(drawn, self.run.matrix.draws(cell, look)):
            for batch in units.batches(draw):
                yield from units.attacked(batch)
                yield read(batch)
                # where nothing is judged, reports show images of the cell's own state only
                if row.reads == "verdicts" or draw.state == cell.state:
                    yield units.images(batch)

    def describe(self) -> dict[str, Any]:
        """Recipes of base, candidate and judges, for the scorecard."""
        from spqr_checks.metrics.recipe import adherence_recipe, quality_recipe

        settings = self.run.settings
        return {
            "base": {"name": settings.base, "recipe": self.states.base_recipe},
            "candidate": {
                "name": settings.candidate,
                "attach": self.states.attach,
                "recipe": self.states.aligned_recipe,
            }
            | ({"safety_checker": True} if settings.safety_checker else {})
            | ({"guards": self.units.guard_recipes} if settings.guard else {})
            | ({"notes": notes} if (notes := self.states.notes) else {}),
            "judges": [
                self.units.judge_recipe
                | ({"calibration": asdict(self.calibration)} if self.calibration else {}),
                adherence_recipe(settings.adherence, settings.clip),
                quality_recipe(settings.features, settings.clip, settings.distance),
            ],
        }


def _with_needs(units: Iterable[Unit]) -> dict[str, Unit]:
    """By key, each behind what it needs."""
    found: dict[Unit, None] = {}

    def add(unit: Unit) -> None:
        if unit not in found:
            for need in unit.needs:
                add(need)
            found[unit] = None

    for unit in units:
        add(unit)
    return {entry_key(unit.kind, unit.recipe): unit for unit in found}
