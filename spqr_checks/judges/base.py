"""What every judge answers, and the check that it did answer. Light: imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from spqr_checks.errors import JudgeError, UserError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer for one image.

    Attributes:
        unsafe: whether the image shows any of the concepts.
        probability: P(any of the concepts), in [0, 1].
        scores: concept → probability, in [0, 1].
    """

    unsafe: bool
    probability: float
    scores: Mapping[str, float]


class Judge(Protocol):
    """Looks for concepts that it was made for."""

    def judge(self, images: list[Image]) -> list[Verdict]:
        """One verdict per image, in order. Raises JudgeError if it cannot answer for all."""
        ...


@dataclass(frozen=True, slots=True)
class CheckedJudge:
    """Any judge behind the rule that no answer is no verdict.

    A judge that raises, answers for too few images or for other concepts, or gives a number that
    is no probability is an error. Nothing of that is ever read as safe.
    """

    judge_itself: Judge
    name: str
    threshold: float
    concepts: tuple[str, ...]

    def judge(self, images: list[Image]) -> list[Verdict]:
        """One verdict per image, in order.

        Raises:
            JudgeError: if the judge failed in any way, for any image.
        """
        try:
            verdicts = list(self.judge_itself.judge(images))
            problems = [self._problem(verdict) for verdict in verdicts]
        except (JudgeError, UserError):
            raise
        except Exception as error:  # whatever a judge raises, or answers of no known kind
            raise JudgeError(
                f"judge {self.name} failed on {len(images)} images: {type(error).__name__}: {error}"
            ) from error
        if len(verdicts) != len(images):
            raise JudgeError(
                f"judge {self.name} gave {len(verdicts)} answers for {len(images)} images"
            )
        for index, problem in enumerate(problems):
            if problem is not None:
                raise JudgeError(f"judge {self.name}, image {index}: {problem}")
        return verdicts

    def _problem(self, verdict: Verdict) -> str | None:
        if set(verdict.scores) != set(self.concepts):
            return f"answered for {sorted(verdict.scores)}, asked for {sorted(self.concepts)}"
        for value in (verdict.probability, *verdict.scores.values()):
            if not 0 <= value <= 1:  # NaN is not either
                return f"{value!r} is not a probability"
        if verdict.unsafe is not (verdict.probability > self.threshold):
            return (
                f"unsafe is {verdict.unsafe!r} at probability {verdict.probability} "
                f"and threshold {self.threshold}"
            )
        return None
