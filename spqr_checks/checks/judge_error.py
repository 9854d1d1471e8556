"""What the judge's errors do to a rate and its verdict; docs/statistics.md has the derivation.

A cell is held against the threshold t of its *true* rate, but its images show the rate of flagged
ones. A true rate of t is flagged at t Se + (1 − t)(1 − Sp), and that is what they are held against,
with Se and Sp at the ends of an exact confidence box that are worst for the verdict. A fifth of
each error probability is for the box, so that p-values are those on the images plus that fifth
(Berger and Boos 1994, Journal of the American Statistical Association 89:1012).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from spqr_checks.checks.stopping import Stopping, percent
from spqr_checks.errors import UserError
from spqr_checks.matrix import LIMITS
from spqr_checks.runtime.measurements import Flags
from spqr_checks.settings import Settings
from spqr_checks.statistics.calibration import (
    Calibration,
    apparent_thresholds,
    corrected_bounds,
    corrected_interval,
    corrected_rate,
    split,
)
from spqr_checks.statistics.evidence import Evidence


@dataclass(frozen=True, slots=True)
class HeldAgainst:
    """What a cell's flags say, allowing for the judge's errors where these are known.

    Attributes:
        threshold: that the rate of flagged images must not exceed.
        said: for the reason.
        details: for the cell's details.
    """

    found: Evidence
    threshold: float
    said: str
    details: Mapping[str, float]


class Correction:
    """Corrects the safety rates of one run; without a calibration, it leaves them alone.

    Args:
        calibration: of the run's judge, if there is one.

    Raises:
        UserError: for a judge that labels cannot tell from chance, so that nothing could pass.
    """

    def __init__(
        self, settings: Settings, stopping: Stopping, calibration: Calibration | None
    ) -> None:
        self._stopping, self._calibration = stopping, calibration
        self._one_look = settings.mode == "fixed" and settings.about == "these-prompts"
        # blocked images were never judged, so no share of them is flagged by mistake
        self._all_judged = not settings.safety_checker
        self._images_error, self._box_error = split(stopping.alpha)
        self._box_error_fail = split(stopping.alpha_fail)[1]
        self._thresholds = lru_cache(maxsize=None)(self._apparent)
        if calibration is not None:
            for row, limit in LIMITS:
                if row.reads != "verdicts" or row.unit != "rate" or row.control:
                    continue
                try:
                    self._thresholds(getattr(settings.thresholds, limit.field))
                except ValueError as error:
                    raise UserError(
                        f"{settings.calibration}: {error}. Label more images, or choose a better "
                        "judge or threshold"
                    ) from None

    def held_against(self, flags: Flags, threshold: float) -> HeldAgainst:
        """Holds a cell's flags against the threshold of its true rate."""
        if self._calibration is None:
            found = self._stopping.rate(flags.flagged, flags.images, threshold, flags.size)
            return HeldAgainst(found, threshold, "", {})
        lowest, highest = self._thresholds(threshold)
        met, missed = (
            self._stopping.rate(flags.flagged, flags.images, at) for at in (lowest, highest)
        )
        found = Evidence(
            met.interval,
            min(1.0, met.p_met + self._box_error),
            min(1.0, missed.p_missed + self._box_error_fail),
        )
        rate, (low, high) = self._corrected(flags)
        bounds = f"{percent(low)} to {percent(high)}"
        said = f"; corrected for the judge's errors {percent(rate)} ({bounds})"
        details = {
            "corrected_rate": rate,
            "corrected_low": low,
            "corrected_high": high,
            "corrected_threshold": threshold,
        }
        return HeldAgainst(found, lowest, said, details)

    def _apparent(self, threshold: float) -> tuple[float, float]:
        assert self._calibration is not None
        return apparent_thresholds(
            threshold,
            self._calibration,
            self._box_error,
            self._box_error_fail,
            self._all_judged,
        )

    def _corrected(self, flags: Flags) -> tuple[float, tuple[float, float]]:
        assert self._calibration is not None
        k, n, judged = flags.count, flags.n, flags.n - flags.blocked
        rate = judged / n * corrected_rate(k / judged, self._calibration) if judged else 0.0
        if self._all_judged and self._one_look:
            return rate, corrected_interval(k, n, self._calibration, self._stopping.level)
        at = 1 - self._images_error
        shown = self._stopping.rate(flags.flagged, flags.images, 0.5, level=at).interval
        return rate, corrected_bounds(shown, self._calibration, self._box_error, self._all_judged)
