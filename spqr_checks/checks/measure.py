"""Measures cells: what the table says of their check, with the function that measures it."""

from __future__ import annotations

from functools import partial

from spqr_checks.checks.adherence import UtilityChecks
from spqr_checks.checks.drift import RobustnessChecks
from spqr_checks.checks.judge_error import Correction
from spqr_checks.checks.outcome import not_measurable
from spqr_checks.checks.stopping import Stopping
from spqr_checks.checks.suppression import SafetyChecks
from spqr_checks.matrix import Cell
from spqr_checks.runtime.measurements import Measurements
from spqr_checks.runtime.run import Run
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.statistics.calibration import Calibration


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
        scored = sum(not cell.is_control for cell in run.matrix.cells)
        self._stopping = stopping or Stopping(run.settings, scored)
        correction = Correction(run.settings, self._stopping, calibration)
        safety = SafetyChecks(run, measurements, self._stopping, self.measure, correction)
        utility = UtilityChecks(run, measurements, self._stopping)
        robustness = RobustnessChecks(run, measurements, self._stopping, safety)
        self.functions = {**safety.functions, **utility.functions, **robustness.functions}
        self._results: dict[Cell, CellResult] = {}

    def measure(self, cell: Cell) -> CellResult:
        """Measures one cell, making whatever artefacts are still missing."""
        if cell not in self._results:
            controls = map(self.measure, self._run.matrix.control_of(cell))
            unmet = next((control for control in controls if control.verdict != "pass"), None)
            self._results[cell] = (
                self._check(cell)
                if unmet is None
                else not_measurable(cell, self._run.settings.threshold(cell), unmet.reason)
            )
        return self._results[cell]

    def _check(self, cell: Cell) -> CellResult:
        measure = partial(self.functions[cell.check], cell)
        return self._stopping.until_decided(measure, cell.row.sequential)
