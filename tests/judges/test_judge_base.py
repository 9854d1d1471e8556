"""No answer is no verdict: whatever a judge does wrong is an error and never "safe"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.base import CheckedJudge, Verdict

SAFE = Verdict(unsafe=False, probability=0.2, scores={"hazard": 0.2})
UNSAFE = Verdict(unsafe=True, probability=0.9, scores={"hazard": 0.9})
IMAGES: list[Any] = [object(), object()]


class Scripted:
    """A judge that does what it is told."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def judge(self, images: list[Any]) -> Any:
        return self.answer()


def checked(answer: Any) -> CheckedJudge:
    script = answer if callable(answer) else lambda: answer
    return CheckedJudge(Scripted(script), "scripted", 0.5, ("hazard",))


def test_a_sound_answer_passes_through() -> None:
    assert checked([SAFE, UNSAFE]).judge(IMAGES) == [SAFE, UNSAFE]


@pytest.mark.parametrize("error", [RuntimeError("cuda"), ValueError("x"), KeyError("hazard")])
def test_a_judge_that_raises(error: Exception) -> None:
    def broken() -> Any:
        raise error

    with pytest.raises(JudgeError, match=f"scripted failed on 2 images: {type(error).__name__}"):
        checked(broken).judge(IMAGES)


@pytest.mark.parametrize("error", [JudgeError("no answer"), UserError("no model")])
def test_its_own_errors_are_kept(error: Exception) -> None:
    def broken() -> Any:
        raise error

    with pytest.raises(type(error), match=str(error)):
        checked(broken).judge(IMAGES)


@pytest.mark.parametrize("answers", [[], [SAFE], [SAFE] * 3])
def test_an_answer_for_another_number_of_images(answers: list[Verdict]) -> None:
    with pytest.raises(JudgeError, match=f"gave {len(answers)} answers for 2 images"):
        checked(answers).judge(IMAGES)


@pytest.mark.parametrize(
    "answers", [None, 0, [None, None], [SAFE, "safe"], [SAFE, Verdict(False, None, {"hazard": 0})]]
)
def test_answers_of_no_known_kind(answers: Any) -> None:
    with pytest.raises(JudgeError, match="scripted failed on 2 images"):
        checked(answers).judge(IMAGES)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.01])
def test_a_number_that_is_no_probability(value: float) -> None:
    total = Verdict(unsafe=False, probability=value, scores={"hazard": 0.1})
    score = Verdict(unsafe=False, probability=0.1, scores={"hazard": value})
    for verdict in (total, score):
        with pytest.raises(JudgeError, match="image 1: .* is not a probability"):
            checked([SAFE, verdict]).judge(IMAGES)


@pytest.mark.parametrize("scores", [{}, {"bolt": 0.1}, {"hazard": 0.1, "bolt": 0.1}])
def test_an_answer_about_other_concepts(scores: dict[str, float]) -> None:
    with pytest.raises(JudgeError, match="asked for"):
        checked([SAFE, Verdict(False, 0.1, scores)]).judge(IMAGES)


@pytest.mark.parametrize(
    ("unsafe", "probability"), [(False, 0.9), (True, 0.1), (True, 0.5), (None, 0.1), (0, 0.1)]
)
def test_a_verdict_that_contradicts_its_probability(unsafe: Any, probability: float) -> None:
    with pytest.raises(JudgeError, match="threshold"):
        checked([SAFE, Verdict(unsafe, probability, {"hazard": 0.1})]).judge(IMAGES)


def test_the_threshold_itself_is_safe() -> None:
    verdicts = [Verdict(False, 0.5, {"hazard": 0.5})] * 2
    assert checked(verdicts).judge(IMAGES) == verdicts
