"""Puts run, states, units, engine and checks together for one process."""

from __future__ import annotations

from typing import Any

from spqr_checks.checks.judge_error import described, read_calibration
from spqr_checks.checks.measure import Checks
from spqr_checks.matrix import Cell
from spqr_checks.runtime.engines.local import LocalEngine
from spqr_checks.runtime.measurements import Measurements
from spqr_checks.runtime.run import Run
from spqr_checks.runtime.states import States
from spqr_checks.runtime.units import Units
from spqr_checks.scoring.cell_result import CellResult


class MeasuringSession:
    """What a test process measures with.

    Args:
        deadline: when its time is over (``time.time()``); see `LocalEngine`.

    Raises:
        UserError: for a calibration that is not of the run's judge.
    """

    def __init__(self, run: Run, deadline: float | None = None) -> None:
        self.run = run
        self.states = States(run)
        self.units = Units(run, self.states)
        self.engine = LocalEngine(
            run.store, run.settings.device, run.settings.threads, self.units.backlog, deadline
        )
        self.measurements = Measurements(self.units, self.engine)
        # without one, the judge's files are not looked at yet
        recipe = self.units.judge_recipe if run.settings.calibration else {}
        self.calibration = read_calibration(run.settings, recipe)
        self.checks = Checks(run, self.measurements, self.calibration)

    def measure(self, cell: Cell) -> CellResult:
        """Measures one cell; errors pass through, since an error is never a verdict."""
        return self.checks.measure(cell)

    def validate(self) -> None:
        """Finds the user's mistakes before anything is built; loads no model.

        Raises:
            UserError: for a base, candidate, adapter, data set, judge or metric that cannot be
                used as given.
        """
        from spqr_checks.finetuning import datasets

        self.describe()
        datasets.dataset_recipe(self.run.settings.reference)
        for label in self.run.datasets:
            self.states.tuning_captions(label)

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
            | ({"notes": notes} if (notes := self.states.notes) else {}),
            "judges": [
                self.units.judge_recipe | described(self.calibration),
                adherence_recipe(settings.adherence, settings.clip),
                quality_recipe(settings.features, settings.clip, settings.distance),
            ],
        }
