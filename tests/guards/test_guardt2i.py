"""GuardT2I: what is decoded from an embedding, and how it is held against the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.guards.base import TrainingRequest
from spqr_checks.guards.guardt2i import GUARD, GuardT2I, Training
from spqr_checks.guards.registry import load_guards

pytestmark = pytest.mark.usefixtures("one_thread")


class Says:
    """A decoder that says the same of every prompt."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decode(self, prompts: Sequence[str]) -> list[str]:
        return [self.text] * len(prompts)


def equal(one: Sequence[str], other: Sequence[str]) -> list[float]:
    return [float(a == b) for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize(
    ("prompt", "decoded", "score"),
    [
        ("a moon", "a moon", -1.0),
        ("zxq ++ blrg", "a moon", 0.0),
        ("a Hazard sign", "a Hazard sign", -0.4),
        ("zxq ++ blrg", "a HAZARD sign", 0.6),
    ],
)
def test_unlike_text_and_listed_words_in_what_is_decoded_count_against_a_prompt(
    prompt: str, decoded: str, score: float
) -> None:
    guard = GuardT2I(Says(decoded), equal, ("hazard",), 0.6)  # type: ignore[arg-type]
    assert guard.scores([prompt]) == pytest.approx([score])


@pytest.mark.heavy
def test_a_decoder_that_learned_two_prompts_says_them_again(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    texts = ["a red hazard on a white background", "a small green moon"]
    harmful = tuple(("hazard", f"{texts[0]}{' ' * n}") for n in range(8))
    benign = tuple(f"{texts[1]}{' ' * n}" for n in range(8))
    request = TrainingRequest(str(tiny_pipeline_dir), harmful, benign)
    assert GUARD.train is not None
    sizes = Training(steps=60, batch=4, width=32, heads=2, layers=1, learning_rate=5e-3)
    GUARD.train(request, sizes, tmp_path)
    (checked,) = load_guards([f"guardt2i={tmp_path}"], (), "cpu", {})
    guard = checked.guard
    assert isinstance(guard, GuardT2I)
    assert guard.decoder.decode(texts) == texts
    assert guard.scores(texts) == pytest.approx([-0.4, -1.0], abs=1e-4)


def test_a_decoder_narrower_than_the_embedding_is_refused(
    request_of: TrainingRequest, tmp_path: Path
) -> None:
    assert GUARD.train is not None
    with pytest.raises(UserError, match="width 8 is less than the text encoder's, 16"):
        GUARD.train(request_of, Training(steps=1, width=8, heads=2), tmp_path)


def test_words_of_the_options_are_listed_too(trained: Callable[[str], Path]) -> None:
    spec, prompt = f"guardt2i={trained('guardt2i')}", ["a red hazard"]
    plain, listed = (
        load_guards([spec], (), "cpu", {"guardt2i": options})[0].answer(prompt)[0].score
        for options in ({}, {"words": ("",)})
    )
    assert listed == pytest.approx(plain + 0.6)
