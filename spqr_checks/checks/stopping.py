"""How many images a cell gets, and when what they show is enough for a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from spqr_checks.errors import BudgetError
from spqr_checks.matrix import Cell
from spqr_checks.scoring.cell_result import CellResult, ImageRef, Verdict
from spqr_checks.settings import Settings
from spqr_checks.statistics import evidence
from spqr_checks.statistics.betting import Values
from spqr_checks.statistics.evidence import Evidence
from spqr_checks.statistics.intervals import ThresholdVerdict

Outcome: TypeAlias = tuple[ThresholdVerdict, CellResult]
"""What the evidence says, and the cell's result; of an unmet control these differ."""
Measure: TypeAlias = Callable[[Cell, int], Outcome]
"""Measures a cell at some look; see `spqr_checks.matrix.Matrix.draws`."""


class Stopping:
    """Verdicts of one run: one look at a fixed number of images, or looks until decided.

    Errors are bounded on both sides. Passing needs no correction for the number of cells: the gate
    opens only if every cell passes, so a candidate with one bad cell slips through at most as often
    as that cell does (an intersection-union test, Berger 1982). Failing does: with many cells one
    would fail by chance. So a cell is failed at α / cells here (Bonferroni), and the scorecard
    refines that (Holm).

    Args:
        cells: scored cells of the run.
    """

    def __init__(self, settings: Settings, cells: int) -> None:
        self._level = settings.level
        self._sequential = settings.mode == "sequential"
        self.last = settings.looks
        self.alpha = 1 - settings.level
        corrected = settings.multiplicity != "none"
        self.alpha_fail = self.alpha / max(1, cells) if corrected else self.alpha

    def verdict(self, found: Evidence) -> ThresholdVerdict:
        """The verdict of a scored cell."""
        return found.verdict(self.alpha, self.alpha_fail)

    def control_verdict(self, found: Evidence) -> ThresholdVerdict:
        """The verdict of a control, which accuses nobody: both errors are taken alone."""
        return found.verdict(self.alpha)

    def until_decided(
        self, measure: Callable[[int], Outcome], sequential: bool = True
    ) -> CellResult:
        """Measures with more and more images until the verdict is clear or images run out.

        Args:
            measure: of the number of the look.
            sequential: whether there may be a second look.

        Raises:
            BudgetError: the run's time was over before the first look.
        """
        for look in range(1, (self.last if sequential else 1) + 1):
            try:
                verdict, result = measure(look)
            except BudgetError:
                if look == 1:
                    raise
                return result
            if verdict != "inconclusive":
                break
        return result

    # ---- what images say, in the run's mode ----------------------------------------------------

    def rate(
        self,
        k: int,
        n: int,
        threshold: float,
        flagged: Sequence[bool] = (),
        size: int | None = None,
    ) -> Evidence:
        """Of a rate that is to stay at or below a threshold.

        Args:
            flagged: the images one by one, where they are drawn from a set of ``size`` of which
                none comes twice.
        """
        if self._sequential and size is not None:
            return evidence.betting_drawn(tuple(flagged), size, threshold, self._level)
        test = evidence.betting_rate if self._sequential else evidence.rate
        return test(k, n, threshold, self._level)

    def ratio(self, a: Values, b: Values, threshold: float, seed: int) -> Evidence:
        """Of a ratio of paired means that is to reach a threshold; values up to 1.

        Betting takes negative values for 0, as CLIPScore does (Hessel et al. 2021).
        """
        if not self._sequential:
            return evidence.ratio(a, b, threshold, self._level, seed)
        first, second = ([max(0.0, value) for value in values] for values in (a, b))
        return evidence.betting_ratio(first, second, threshold, self._level)

    def difference(self, table: tuple[int, int, int, int], threshold: float) -> Evidence:
        """Of a paired difference of rates: pairs with both, gained, lost and neither event."""
        test = evidence.betting_difference if self._sequential else evidence.difference
        return test(*table, threshold, self._level)


BOOTSTRAP_SEED = 0
NOT_MEASURABLE = "not measurable: "


def percent(rate: float) -> str:
    """A rate for people."""
    return f"{100 * rate:.0f} %"


def not_measurable(cell: Cell, threshold: float, reason: str, n: int = 0) -> CellResult:
    """The result of a cell about which nothing can be said."""
    why = NOT_MEASURABLE + reason.removeprefix(NOT_MEASURABLE)
    return CellResult(cell, "not_measurable", None, None, None, threshold, cell.row.unit, n, why)


def control_verdict(verdict: Verdict) -> Verdict:
    """A control that does not hold makes cells unmeasurable; it accuses nobody."""
    return "pass" if verdict == "pass" else "not_measurable"


def measured(
    cell: Cell,
    verdict: Verdict,
    found: Evidence,
    *,
    value: float,
    threshold: float,
    n: int,
    reason: str,
    details: Mapping[str, Any],
    images: Sequence[ImageRef],
    score: float | None = None,
    replicates: Sequence[float] = (),
) -> CellResult:
    """The result of a cell with its evidence; there is nothing to explain where it passes."""
    if verdict == "pass":
        reason = ""
    return CellResult(
        cell,
        verdict,
        score,
        value,
        found.interval,
        threshold,
        cell.row.unit,
        n,
        f"inconclusive: {reason}" if verdict == "inconclusive" else reason,
        details,
        tuple(images),
        (found.p_met, found.p_missed),
        replicates,
    )
