"""How many images a cell gets, and when what they show is enough for a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from spqr_checks.errors import BudgetError
from spqr_checks.matrix import Cell
from spqr_checks.scoring.cell_result import CellResult, ImageRef, Verdict
from spqr_checks.settings import Settings
from spqr_checks.statistics import evidence, resampling
from spqr_checks.statistics.betting import Floats, Values
from spqr_checks.statistics.clusters import effective_n, means
from spqr_checks.statistics.evidence import Evidence, betting_mean
from spqr_checks.statistics.intervals import ThresholdVerdict
from spqr_checks.statistics.ratios import ratio

Outcome: TypeAlias = tuple[ThresholdVerdict, CellResult]
"""What the evidence says, and the cell's result; of an unmet control these differ."""
Measure: TypeAlias = Callable[[Cell, int], Outcome]
"""Measures a cell at some look; see `spqr_checks.matrix.Matrix.draws`."""
_NOT_MEASURABLE = "not measurable: "


class Stopping:
    """Verdicts of one run: one look at a fixed number of images, or looks until decided.

    Errors are bounded on both sides. Passing needs no correction for the number of cells: the gate
    opens only if every cell passes, so a candidate with one bad cell slips through at most as often
    as that cell does (an intersection-union test, Berger 1982). Failing does: with many cells one
    would fail by chance. So a cell is failed at α / cells here (Bonferroni), and the scorecard
    refines that (Holm).

    Args:
        cells: scored cells of the run; a claim of a user's own test may count as several.
    """

    def __init__(self, settings: Settings, cells: float) -> None:
        self.level = settings.level
        self._like = settings.about == "prompts-like-these"
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
        flagged: Sequence[bool],
        images: Sequence[ImageRef],
        threshold: float,
        size: int | None = None,
        level: float | None = None,
    ) -> Evidence:
        """Of a rate that is to stay at or below a threshold.

        Args:
            size: of the set of prompts, where none comes twice.
            level: of the interval; the run's if not given.
        """
        level = self.level if level is None else level
        if self._like:
            return self._over_prompts([float(f) for f in flagged], images, threshold, level)
        if self._sequential and size is not None:
            return evidence.betting_drawn(tuple(flagged), size, threshold, level)
        test = evidence.betting_rate if self._sequential else evidence.rate
        return test(sum(flagged), len(flagged), threshold, level)

    def ratio(self, a: Values, b: Values, images: Sequence[ImageRef], threshold: float) -> Evidence:
        """Of a ratio of paired means that is to reach a threshold."""
        clusters, share = self.clusters(images), 1
        if clusters is not None:
            a, b, share = means(a, clusters), means(b, clusters), self._looks_again(clusters)
        level = 1 - (1 - self.level) / share
        return _shared(ratio(a, b, threshold, level, self._sequential), share)

    def difference(
        self,
        before: Sequence[bool],
        after: Sequence[bool],
        images: Sequence[ImageRef],
        threshold: float,
    ) -> Evidence:
        """Of a paired difference of rates that is to stay at or below a threshold."""
        change = [int(a) - int(b) for b, a in zip(before, after, strict=True)]
        if self._like:
            halves = [(1 + step) / 2 for step in change]
            found = self._over_prompts(halves, images, (1 + threshold) / 2, self.level)
            low, high = found.interval
            return replace(found, interval=(2 * low - 1, 2 * high - 1))
        gained, lost, both = change.count(1), change.count(-1), sum(after) - change.count(1)
        test = evidence.betting_difference if self._sequential else evidence.difference
        table = (both, gained, lost, len(change) - both - gained - lost)
        return test(*table, threshold, self.level)

    # ---- images of one prompt, where prompts are a sample ----------------------------------------

    def clusters(self, images: Sequence[ImageRef]) -> list[str] | None:
        """Prompt of each image, if these are what is independent; else the images are."""
        return [image.prompt for image in images] if self._like else None

    def weights(self, images: Sequence[ImageRef]) -> Floats:
        """Weights of images in each replicate; see `statistics.resampling`."""
        names = [image.prompt for image in images], [image.seed for image in images]
        return resampling.weights(*names, by_prompt=self._like)

    def clustered(
        self, images: Sequence[ImageRef], values: Sequence[float] | None = None
    ) -> dict[str, float]:
        """For a cell's details: prompts, and how many independent images its mean is worth."""
        clusters = self.clusters(images)
        if clusters is None:
            return {}
        worth = {} if values is None else {"effective_n": effective_n(values, clusters)}
        return {"prompts": len(set(clusters)), **worth}

    def _over_prompts(
        self, values: Values, images: Sequence[ImageRef], threshold: float, level: float
    ) -> Evidence:
        """Of the mean over prompts, of which each is one observation: valid however few there are.

        Bets need no normality, which rates near zero do not have, and serve one look as well.
        """
        clusters = [image.prompt for image in images]
        share = self._looks_again(clusters)
        found = betting_mean(means(values, clusters), threshold, 1 - (1 - level) / share)
        return _shared(found, share)

    def _looks_again(self, clusters: Sequence[str]) -> int:
        """By what errors are divided.

        As long as no prompt comes again, observations follow one another and bets hold at any time.
        A prompt that comes again changes its mean. Half the error is for the former, and half is
        divided among the later looks, each of which is then a test of its own.
        """
        if self.last == 1:
            return 1
        return 2 if len(set(clusters)) == len(clusters) else 2 * (self.last - 1)


def _shared(found: Evidence, share: int) -> Evidence:
    p_met, p_missed = (min(1.0, share * p) for p in (found.p_met, found.p_missed))
    return replace(found, p_met=p_met, p_missed=p_missed)


def percent(rate: float) -> str:
    """A rate for people."""
    return f"{100 * rate:.0f} %"


def not_measurable(cell: Cell, threshold: float, reason: str, n: int = 0) -> CellResult:
    """The result of a cell about which nothing can be said."""
    why = _NOT_MEASURABLE + reason.removeprefix(_NOT_MEASURABLE)
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
