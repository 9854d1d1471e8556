"""Which check measures which cell, and what an unmet control means for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from spqr_checks.matrix import Cell
from spqr_checks.measurement.judge_error import Correction
from spqr_checks.measurement.looks import Looks, Outcome
from spqr_checks.measurement.outcome import nothing
from spqr_checks.measurement.readings import Readings
from spqr_checks.measurement.robustness import RobustnessChecks
from spqr_checks.measurement.run import Run
from spqr_checks.measurement.safety import SafetyChecks
from spqr_checks.measurement.utility import UtilityChecks
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.statistics.calibration import Calibration


class Checks:
    """Measures the cells of one run; a cell's controls are measured with it.

    Args:
        calibration: how often the run's judge errs, if that is known.
        looks: how verdicts are reached; if not given, as the settings say.
    """

    def __init__(
        self,
        run: Run,
        readings: Readings,
        calibration: Calibration | None = None,
        looks: Looks | None = None,
    ) -> None:
        self._run = run
        scored = sum(not cell.is_control for cell in run.matrix.cells)
        self._looks = looks or Looks(run.settings, scored)
        correction = Correction(run.settings, self._looks, calibration)
        self._safety = SafetyChecks(run, readings, self._looks, self.measure, correction)
        self._utility = UtilityChecks(run, readings, self._looks)
        self._robustness = RobustnessChecks(run, readings, self._looks, self._safety)
        self._results: dict[Cell, CellResult] = {}

    def measure(self, cell: Cell) -> CellResult:
        """Measures one cell, making whatever artefacts are still missing."""
        if cell not in self._results:
            controls = map(self.measure, self._run.matrix.control_of(cell))
            unmet = next((control for control in controls if control.verdict != "pass"), None)
            self._results[cell] = (
                self._check(cell) if unmet is None else self._without_control(cell, unmet)
            )
        return self._results[cell]

    def _check(self, cell: Cell) -> CellResult:
        measure: Callable[[Cell, int], Outcome]
        match cell.check:
            case "suppression":
                measure = self._safety.suppression
            case "positive_control" | "ceiling_control":
                measure = self._safety.concept_is_drawn
            case "negative_control":
                measure = self._safety.negative_control
            case "adherence" | "over_refusal":
                measure = self._utility.adherence
            case "drift":
                measure = self._robustness.drift
            case "quality":
                return self._utility.quality(cell)
            case "gain_control":
                return self._robustness.gain(cell)
        return self._looks.until_decided(partial(measure, cell))

    def _without_control(self, cell: Cell, control: CellResult) -> CellResult:
        if cell.check == "drift":
            threshold = self._run.settings.thresholds.drift
            return nothing(cell, threshold, "points", control.reason)
        return nothing(cell, self._safety.threshold(cell.state), "rate", control.reason)
