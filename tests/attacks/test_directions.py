"""Searches go where they say: to a target that a test has put there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from targets import Answering, Text, Weights, no_report, request
from torch import Tensor

from spqr_checks.attacks import ring_a_bell, sneakyprompt
from spqr_checks.attacks.registry import ATTACKS
from spqr_checks.attacks.search import concept, denoising
from spqr_checks.attacks.search.concept import concept_vectors
from spqr_checks.attacks.search.encoders import encoded


def test_a_concept_vector_leads_from_without_to_with(
    tiny_pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concept, "PAIRS", (("a {concept}", "a wall"), ("{concept}", "")))
    with torch.no_grad():
        with_it, without = (
            encoded(tiny_pipeline, texts)[0] for texts in (["a star", "star"], ["a wall", ""])
        )
    (vector,) = concept_vectors(tiny_pipeline, "star")
    torch.testing.assert_close(vector, (with_it - without).mean(0))


def test_ring_a_bell_looks_beside_the_prompt_along_the_concept(
    tiny_pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    goals: list[Tensor] = []
    own = ring_a_bell.Genetic

    class Seen(own):  # type: ignore[misc, valid-type]
        def __init__(self, lead: Any, vocabulary: Any, target: Tensor, options: Any) -> None:
            goals.append(target)
            super().__init__(lead, vocabulary, target, options)

    monkeypatch.setattr(ring_a_bell, "Genetic", Seen)
    attack = ATTACKS.get("ring-a-bell")
    options = attack.options(eta=2.0, tokens=3, population=4, generations=1)
    attack.run(Text(tiny_pipeline), request(), options, no_report)
    with torch.no_grad():
        prompt = encoded(tiny_pipeline, [request().prompt])[0][0]
    (vector,) = concept_vectors(tiny_pipeline, request().concept)
    torch.testing.assert_close(goals[0], prompt + 2 * vector)


class Reading(denoising.Denoising):
    """A denoiser that says what it is told; the original is told of stars."""

    wish: Tensor

    def predicted(self, noisy: Tensor, t: Tensor, states: Sequence[Tensor]) -> Tensor:
        return states[0]

    def ahead(self, steps: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [(torch.tensor([1]), torch.zeros(1), self.wish)] * steps

    def noised(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(1), self.wish


WHOLE = "a red triangle a red star"
"""Of words that are one token each."""
FIRST: dict[str, Any] = {"look": 1, "steps": 1}
LAST: dict[str, Any] = {"look": 20, "steps": 20}
SEARCHES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "p4d, variant n": ("p4d", "star star star", FIRST | {"tokens": 3}, LAST),
    "p4d, variant k": (
        *("p4d", "star a red triangle star a red star star"),
        *(FIRST | {"variant": "k"}, LAST),
    ),
    "unlearndiffatk": (
        *("unlearndiffatk", "star star a red triangle a red star"),
        *({"tokens": 2, "times": 1, "iterations": 1, "learning_rate": 0.1}, {"iterations": 25}),
    ),
}


@pytest.mark.heavy
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", SEARCHES)
def test_gradients_lead_to_tokens_that_make_the_prediction_better(
    name: str, tiny_pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, wish, few, many = SEARCHES[name]
    tiny_pipeline.text_encoder.get_input_embeddings().weight.data *= 50
    with torch.no_grad():
        Reading.wish = encoded(tiny_pipeline, [wish])[0]
    monkeypatch.setattr(denoising, "Denoising", Reading)
    attack = ATTACKS.get(kind)

    def found(**options: Any) -> tuple[float, str]:
        given = attack.options(**options)
        prompt = attack.run(Weights(tiny_pipeline), request(WHOLE), given, no_report).prompt
        with torch.no_grad():
            states = encoded(tiny_pipeline, [prompt])[0]
        return float((states - Reading.wish).square().mean()), prompt

    (early, _), (late, prompt) = found(**few), found(**(few | many))
    assert late < 0.9 * early
    own, words = WHOLE.split(), prompt.split()
    match name:
        case "p4d, variant n":
            assert len(words) == 3
        case "p4d, variant k":
            assert [*words[1:4], *words[5:8]] == own
            assert len(words) == 9
        case _:
            assert words[2:] == own


@pytest.mark.heavy
@pytest.mark.usefixtures("one_thread")
def test_the_policy_learns_which_syllables_pay() -> None:
    def follows(prompt: str) -> float:
        return 0.1 + 0.8 * (prompt.split()[1][0] in "bdfgkl")

    target = Answering(follows=follows)
    options = sneakyprompt.SneakyPromptOptions(
        subwords=1, queries=90, enough=0.95, still=0.0, learning_rate=0.05
    )
    sneakyprompt.ATTACK.run(target, request(), options, no_report)
    paid = [follows(prompt) for prompt in target.asked]
    assert sum(paid[-30:]) > sum(paid[:30]) + 5
