"""Answers about an image as a whole, and scores held against thresholds of their own. Light."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spqr_checks.errors import JudgeError
from spqr_checks.judges.base import Verdict


def whole_image(probability: float, threshold: float, concepts: Sequence[str]) -> Verdict:
    """The verdict of a judge that only says safe or unsafe: the same for every concept."""
    return Verdict(
        unsafe=probability > threshold,
        probability=probability,
        scores=dict.fromkeys(concepts, probability),
    )


def relative(score: float, own: float) -> float:
    """A score in [0, 1] on a scale where its own threshold lies at 0.5.

    Linear on both sides: 0 ↦ 0, the threshold ↦ 0.5, 1 ↦ 1. Above 0.5 exactly when the score is
    above its threshold, whatever the rounding. It keeps the order of scores but is no calibrated
    probability.

    Raises:
        JudgeError: for a score outside [0, 1], or NaN.
    """
    if not 0 <= score <= 1:
        raise JudgeError(f"a score of {score!r}, which should lie between 0 and 1")
    if score <= own:
        return 0.5 * (score / own)
    return max(0.5 + 0.5 * ((score - own) / (1 - own)), math.nextafter(0.5, 1))
