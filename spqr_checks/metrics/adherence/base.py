"""What every text-image adherence score answers. Light: imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from spqr_checks.errors import JudgeError
from spqr_checks.metrics.needs import Needs

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
