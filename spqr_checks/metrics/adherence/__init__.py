"""Text-image adherence scores by name. Light: a score's model is loaded when it is asked.

A new score is one new file in this folder. Its name is the file's, and it defines ``ADHERENCE``,
an `AdherenceKind`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from spqr_checks.errors import JudgeError
from spqr_checks.metrics.model_metrics import ModelMetrics, Needs

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
    """One score.

    Attributes:
        load: (source, device) → scorer; imports what is heavy. Raises UserError.
    """

    scale: Scale
    load: Callable[[str, str], Scorer]
    needs: Needs = field(default_factory=Needs)


ADHERENCES = ModelMetrics("adherence", "ADHERENCE", AdherenceKind)


def scale_of(spec: str, clip: str) -> Scale:
    """What the numbers of a score are. Raises UserError for an unknown one."""
    return ADHERENCES.get(ADHERENCES.named(spec, clip).name).scale


def adherence_scores(
    images: Sequence[Image], prompts: Sequence[str], spec: str, clip: str, device: str = "cpu"
) -> list[float]:
    """How well each image follows its own prompt, in the scale of the score.

    Args:
        images: one per prompt.
        spec: ``NAME`` or ``NAME=SOURCE``.
        clip: the run's CLIP model, which ``clip`` without a source takes.
        device: where it computes.

    Raises:
        ValueError: if images and prompts differ in number.
        UserError: for an unknown score or a model that cannot be loaded.
        JudgeError: for a score that is missing, not finite or out of range.
    """
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images but {len(prompts)} prompts")
    scorer: Scorer = ADHERENCES.loaded(spec, clip, device)
    name = ADHERENCES.named(spec, clip).name
    return checked(name, scale_of(spec, clip), scorer.scores(images, prompts), len(images))


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
