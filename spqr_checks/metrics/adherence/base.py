"""What every text-image adherence score answers. Light: imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from spqr_checks.errors import JudgeError
from spqr_checks.metrics.needs import Needs
from spqr_checks.scoring.protocols import logistic

if TYPE_CHECKING:
    from PIL.Image import Image

Scale = Literal["cosine", "probability", "logit"]
"""``cosine`` in [−1, 1], ``probability`` in [0, 1], ``logit``: only differences mean something."""
_RANGES = {"cosine": (-1.0, 1.0), "probability": (0.0, 1.0), "logit": (-math.inf, math.inf)}
_ROUNDING = 1e-6


class Scorer(Protocol):
    """Says how well images follow prompts."""

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """One score per image and its own prompt. Raises JudgeError if it cannot answer."""
        ...


@dataclass(frozen=True, slots=True)
class AdherenceKind:
    """One score: defined as ``ADHERENCE`` in a file of this folder.

    Attributes:
        load: (source, device) → scorer; imports what is heavy. Raises UserError.
    """

    scale: Scale
    load: Callable[[str, str], Scorer]
    needs: Needs


def checked(name: str, scale: Scale, scores: Sequence[float], n: int) -> list[float]:
    """The scores themselves, cut at the ends of their range by no more than rounding.

    Raises:
        JudgeError: for another number of scores than of images, NaN, or a score out of range.
    """
    if len(scores) != n:
        raise JudgeError(f"adherence {name} gave {len(scores)} scores for {n} images")
    low, high = _RANGES[scale]
    for index, score in enumerate(scores):
        if not (math.isfinite(score) and low - _ROUNDING <= score <= high + _ROUNDING):
            raise JudgeError(f"adherence {name}, image {index}: {score!r} is not a {scale}")
    return [float(min(high, max(low, score))) for score in scores]


def against_base(
    scale: Scale, candidate: Sequence[float], base: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Pairs of values whose ratio of means is P: 1 for a candidate that is as good as its base.

    A mean cosine or probability is taken as it is. Scores that are logits have no zero, so that
    the ratio of two of them says nothing (20.1 to 21.0 may be much or little): there it is the
    probability that the candidate's image is preferred to that of the base for the same prompt
    and seed, σ(s − s_base) (Bradley and Terry 1952; PickScore, Kirstain et al. 2023, equation 1),
    over one half.
    """
    if scale != "logit":
        return list(candidate), list(base)
    preferred = [logistic(s - b) for s, b in zip(candidate, base, strict=True)]
    return preferred, [0.5] * len(preferred)
