"""A judge that errs: how often, and what the rate of unsafe images is once that is allowed for.

An imperfect judge with sensitivity Se and specificity Sp flags images at the rate
q = p Se + (1 − p)(1 − Sp) when the true rate is p, so that p = (q + Sp − 1)/(Se + Sp − 1) (Rogan
and Gladen 1978, American Journal of Epidemiology 107:71). Se and Sp come from labelled images.

Where there are no labels, two judges can be held against each other: Cohen's κ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spqr_checks.statistics.intervals import Interval, clopper_pearson, quantile

_CALIBRATION_SHARE = 0.2
"""Share of an error probability that is spent on not knowing Se and Sp exactly."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A judge's answers for labelled images.

    Attributes:
        flagged: unsafe images that it flags, among ``unsafe``.
        passed: safe images that it does not flag, among ``safe``.

    Raises:
        ValueError: counts that cannot be, or no image of one of the two kinds.
    """

    flagged: int
    unsafe: int
    passed: int
    safe: int

    def __post_init__(self) -> None:
        for k, n in ((self.flagged, self.unsafe), (self.passed, self.safe)):
            if not 0 <= k <= n or n < 1:
                raise ValueError(f"a calibration needs images of both kinds, not {k} of {n}")

    @property
    def sensitivity(self) -> float:
        """Share of unsafe images that are flagged."""
        return self.flagged / self.unsafe

    @property
    def specificity(self) -> float:
        """Share of safe images that are not."""
        return self.passed / self.safe

    def box(self, error: float) -> tuple[Interval, Interval]:
        """Bounds of Se and Sp that all hold but with probability ``error``, by Bonferroni.

        Four exact one-sided bounds (Clopper and Pearson) of ``error`` / 4 each.
        """
        level = 1 - error / 2
        return (
            clopper_pearson(self.flagged, self.unsafe, level),
            clopper_pearson(self.passed, self.safe, level),
        )


def corrected_rate(rate: float, calibration: Calibration) -> float:
    """Rogan and Gladen's estimate of the true rate, clipped to [0, 1].

    Args:
        rate: share of flagged images.

    Raises:
        ValueError: a judge no better than chance (Se + Sp ≤ 1), or a rate outside [0, 1].
    """
    if not 0 <= rate <= 1:  # also refuses NaN
        raise ValueError(f"a rate lies between 0 and 1, not at {rate}")
    se, sp = calibration.sensitivity, calibration.specificity
    return _solved(rate, se, sp)


def corrected_interval(k: int, n: int, calibration: Calibration, level: float = 0.95) -> Interval:
    """Interval of the true rate (Lang and Reiczigel 2014, Preventive Veterinary Medicine 113:13).

    It carries what the labelled images leave open of Se and Sp. For one look at a fixed number of
    images; its coverage is close to the level, not guaranteed.

    Args:
        k: flagged images among ``n``.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        ValueError: as `corrected_rate`, counts that cannot be, or a bad level.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"{k} flagged of {n} images")
    corrected_rate(k / n, calibration)  # refuses what it refuses
    z = quantile(level, 2)
    images, q = n + z * z, (k + z * z / 2) / (n + z * z)
    unsafe, se = calibration.unsafe + 2, (calibration.flagged + 1) / (calibration.unsafe + 2)
    safe, sp = calibration.safe + 2, (calibration.passed + 1) / (calibration.safe + 2)
    youden = se + sp - 1
    if youden <= 0:  # few labels, shrunk towards a half
        return 0.0, 1.0
    p = (q + sp - 1) / youden
    noise_se, noise_sp = se * (1 - se) / unsafe, sp * (1 - sp) / safe
    shift = 2 * z * z * (p * noise_se - (1 - p) * noise_sp)
    variance = q * (1 - q) / images + p * p * noise_se + (1 - p) ** 2 * noise_sp
    margin = z * math.sqrt(variance) / youden
    return _clipped(p + shift - margin), _clipped(p + shift + margin)


def corrected_bounds(
    apparent: Interval, calibration: Calibration, error: float, all_judged: bool = True
) -> Interval:
    """Bounds of the true rate from bounds of the rate of flagged images, however those were had.

    If the given bounds miss with probability at most a, these miss with at most a + ``error``,
    so they serve confidence sequences too.

    Args:
        all_judged: False if some images are safe without having been judged: an unknown share is
            then not flagged by mistake either.

    Raises:
        ValueError: as `corrected_rate`; bounds in the wrong order.
    """
    low, high = apparent
    if not 0 <= low <= high <= 1:
        raise ValueError(f"no bounds of a rate: {apparent}")
    corrected_rate(low, calibration)  # refuses what it refuses
    (se_low, se_high), (sp_low, sp_high) = calibration.box(error)
    if se_low + sp_low <= 1:
        return 0.0, 1.0
    # rises with the rate and with Sp, falls with Se, wherever it lies in [0, 1]
    most = _solved(high, se_low, sp_high if all_judged else 1.0)
    return _solved(low, se_high, sp_low), most


def split(error: float) -> tuple[float, float]:
    """An error probability as its part for the images and its part for Se and Sp."""
    of_judge = _CALIBRATION_SHARE * error
    return error - of_judge, of_judge


def apparent_thresholds(
    threshold: float,
    calibration: Calibration,
    error_pass: float,
    error_fail: float,
    all_judged: bool = True,
) -> tuple[float, float]:
    """What the rate of flagged images is held against, for a threshold t of the true rate.

    A true rate of t is flagged at the rate t Se + (1 − t)(1 − Sp), which lies above the first and
    below the second value returned, but with probability ``error_pass`` and ``error_fail``.

    Args:
        threshold: of the true rate, in [0, 1].
        error_pass: of the first, which a rate must not exceed to pass.
        error_fail: of the second, which a rate must exceed to fail.
        all_judged: as in `corrected_bounds`.

    Returns:
        The second is 1, which no rate exceeds, where there are too few labels to fail anything at
        its error.

    Raises:
        ValueError: as `corrected_rate`; or too few labels to tell the judge from chance at the
            first error, so that nothing can pass.
    """
    corrected_rate(threshold, calibration)  # refuses what it refuses
    (se_low, _), (sp_low, sp_high) = calibration.box(error_pass)
    if se_low + sp_low <= 1:
        raise ValueError("too few labelled images to tell the judge from chance")
    lowest = _apparent(threshold, se_low, sp_high if all_judged else 1.0)
    (se_low, se_high), (sp_low, _) = calibration.box(error_fail)
    return lowest, _apparent(threshold, se_high, sp_low) if se_low + sp_low > 1 else 1.0


def _apparent(p: float, se: float, sp: float) -> float:
    return _clipped(p * se + (1 - p) * (1 - sp))


def _solved(q: float, se: float, sp: float) -> float:
    if se + sp <= 1:
        raise ValueError(
            f"sensitivity {se:.3f} and specificity {sp:.3f}: the judge is no better than chance"
        )
    return _clipped((q + sp - 1) / (se + sp - 1))


def _clipped(rate: float) -> float:
    return min(1.0, max(0.0, rate))


def cohens_kappa(
    first: Sequence[bool], second: Sequence[bool], level: float = 0.95
) -> tuple[float, Interval]:
    """κ of two judges' answers for the same images, and its interval.

    Cohen 1960 (Educational and Psychological Measurement 20:37); the interval is the asymptotic
    one of Fleiss, Cohen and Everitt 1969 (Psychological Bulletin 72:323), clipped to [−1, 1].

    Raises:
        ValueError: answers for other numbers of images, none at all, a bad level, or both judges
            giving one and the same answer throughout, where κ is not defined.
    """
    n = len(first)
    if n != len(second) or n < 1:
        raise ValueError(f"{n} and {len(second)} answers; the judges must see the same images")
    z = quantile(level, 2)
    cells = {(a, b): 0.0 for a in (0, 1) for b in (0, 1)}
    for a, b in zip(first, second, strict=True):
        cells[int(bool(a)), int(bool(b))] += 1 / n
    rows = [cells[a, 0] + cells[a, 1] for a in (0, 1)]
    columns = [cells[0, b] + cells[1, b] for b in (0, 1)]
    observed = cells[0, 0] + cells[1, 1]
    expected = rows[0] * columns[0] + rows[1] * columns[1]
    if 1 - expected < 1e-12:
        raise ValueError("both judges give the same answer for every image; kappa is undefined")
    kappa = (observed - expected) / (1 - expected)
    agreeing = sum(
        cells[i, i] * ((1 - expected) - (rows[i] + columns[i]) * (1 - observed)) ** 2
        for i in (0, 1)
    )
    differing = (1 - observed) ** 2 * sum(
        cells[a, b] * (columns[a] + rows[b]) ** 2 for a, b in ((0, 1), (1, 0))
    )
    centre = (observed * expected - 2 * expected + observed) ** 2
    variance = max(0.0, agreeing + differing - centre) / (n * (1 - expected) ** 4)
    margin = z * math.sqrt(variance)
    return kappa, (max(-1.0, kappa - margin), min(1.0, kappa + margin))
