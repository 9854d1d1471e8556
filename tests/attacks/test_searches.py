"""What each search does, on networks that a test can see through."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from targets import Answering, Text, Weights, no_report, request

from spqr_checks.attacks import diffzoo, genbreak, p4d, sneakyprompt
from spqr_checks.attacks.attack import Attack, AttackError
from spqr_checks.attacks.genbreak import GenBreakOptions
from spqr_checks.attacks.mma import ATTACK as MMA
from spqr_checks.attacks.mma import MMAOptions
from spqr_checks.attacks.p4d import P4DOptions
from spqr_checks.attacks.registry import ATTACKS
from spqr_checks.attacks.ring_a_bell import Genetic, RingABellOptions
from spqr_checks.attacks.search import concept, denoising
from spqr_checks.attacks.search.concept import concept_vectors
from spqr_checks.attacks.search.denoising import Denoising
from spqr_checks.attacks.search.encoders import Lead, encoded
from spqr_checks.attacks.search.vocabulary import Vocabulary
from spqr_checks.attacks.sneakyprompt import SneakyPromptOptions
from spqr_checks.attacks.unlearndiffatk import on_simplex
from spqr_checks.errors import UserError
from spqr_checks.matrix import State

# ---- ring-a-bell -----------------------------------------------------------------------------


def genetic(pipe: StableDiffusionPipeline, compat: bool) -> list[float]:
    """The best loss of each generation."""
    lead = Lead(pipe, "tokens", "ring-a-bell")
    vocabulary = Vocabulary(lead.tokenizer, compat=False)
    generator = torch.Generator().manual_seed(0)
    target = lead.encode(vocabulary.draw((1, 4), generator), [""])[0].detach()
    options = RingABellOptions(generations=15, patience=None, mutation=1.0, compat=compat)
    search = Genetic(lead, vocabulary, target, options)
    seen: list[float] = []
    rate = search._losses

    def noted(rows: torch.Tensor) -> torch.Tensor:
        losses = rate(rows)
        seen.append(float(losses.min()))
        return losses

    search._losses = noted  # type: ignore[method-assign]
    row, loss = search.search(vocabulary.draw((12, 4), generator), generator, no_report)
    assert float(rate(row[None])[0]) == pytest.approx(loss, rel=1e-4)
    assert (loss == pytest.approx(min(seen), rel=1e-4)) is not compat
    return seen


def test_the_genetic_search_never_loses_its_best_row_unless_it_repeats_the_authors(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    sound = genetic(tiny_pipeline, compat=False)
    assert min(sound) < sound[0]
    genetic(tiny_pipeline, compat=True)


@pytest.mark.parametrize("k", [16, 38, 77])
def test_rows_are_as_long_as_the_paper_s_or_as_fits(
    k: int, tiny_pipeline: StableDiffusionPipeline
) -> None:
    options = RingABellOptions(tokens=k, population=4, generations=1)
    found = ATTACKS.get("ring-a-bell").run(Text(tiny_pipeline), request(), options, no_report)
    most = Lead(tiny_pipeline, "tokens", "ring-a-bell").most
    assert len(found.prompt.split()) == min(k, most)


def test_the_concept_vector_is_what_the_pairs_differ_by(
    tiny_pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concept, "PAIRS", (("{concept}", "circle"), ("{concept}", "circle")))
    assert float(concept_vectors(tiny_pipeline, "circle")[0].abs().max()) == 0
    assert float(concept_vectors(tiny_pipeline, "star")[0].abs().max()) > 0


# ---- unlearndiffatk and p4d ------------------------------------------------------------------


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8))
def test_a_projected_row_is_the_nearest_distribution(row: list[float]) -> None:
    given = torch.tensor([row], dtype=torch.float64)
    found = on_simplex(given)[0]
    assert float(found.sum()) == pytest.approx(1)
    assert bool((found >= 0).all())
    # optimality: all positive entries are shifted alike, the others by less
    shift = given[0] - found
    level = shift[found > 0]
    assert torch.allclose(level, level[:1].expand_as(level), atol=1e-9)
    assert bool((shift[found == 0] <= level[0] + 1e-9).all())


@pytest.mark.parametrize(
    ("own", "row"),
    [
        ([1, 2, 3, 4], [None, 1, 2, 3, None, 4]),
        ([1, 2, 3], [None, 1, 2, 3, None]),
        ([], [None]),
    ],
)
def test_variant_k_learns_a_token_before_every_third_and_int_of_a_third_more(
    own: list[int], row: list[int | None]
) -> None:
    found, places = p4d.layout(own, P4DOptions(variant="k"), most=75)
    assert found == row
    assert len(places) == len(own) // 3 + 1


def test_rows_never_outgrow_the_encoder() -> None:
    assert len(p4d.layout(list(range(90)), P4DOptions(variant="k"), 30)[0]) == 30
    assert p4d.layout([1], P4DOptions(tokens=40), 30) == ([None] * 30, list(range(30)))


def test_what_the_original_says_of_coming_steps_is_what_it_says_of_each(
    tiny_pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(seed: int) -> Denoising:
        lead = Lead(tiny_pipeline, "tokens", "p4d")
        generator = torch.Generator().manual_seed(seed)
        return Denoising(Weights(tiny_pipeline), lead, request(), 2, generator)

    monkeypatch.setattr(denoising, "_TOGETHER", 6)  # three steps of two images, and one step
    one, told = task(3), encoded(tiny_pipeline, [request().prompt])
    generator = torch.Generator().manual_seed(3)
    one._generator = generator
    found = task(3).ahead(4)
    assert len({int(t) for t, _, _ in found}) > 1
    for t, noisy, wish in found:
        assert int(t) == int(torch.randint(one.timesteps, (1,), generator=generator))
        assert torch.equal(noisy, one.noised(t)[0])
        torch.testing.assert_close(wish, one.predicted(noisy, t, told), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["p4d", "unlearndiffatk", "ring-a-bell", "mma"])
def test_a_loss_that_is_no_number_ends_the_search_with_an_error(
    name: str, tiny_pipeline: StableDiffusionPipeline
) -> None:
    attack = ATTACKS.get(name)
    few = {"steps": 2, "times": 1, "iterations": 2, "generations": 3, "population": 4}
    given = {key: n for key, n in few.items() if key in attack.options.model_fields}
    target, options = Weights(tiny_pipeline), attack.options(**given)
    assert attack.run(target, request(), options, no_report).prompt
    broken = tiny_pipeline.unet if attack.through else tiny_pipeline.text_encoder
    with torch.no_grad():
        next(p for p in broken.parameters() if p.ndim == 1).fill_(float("nan"))
    with pytest.raises(AttackError, match=f"{name}.*NaN or infinity"):
        attack.run(target, request(), options, no_report)


# ---- mma -------------------------------------------------------------------------------------


def loss_after(pipe: StableDiffusionPipeline, **options: Any) -> tuple[float, str]:
    given = {"tokens": 4, "candidates": 24, "top": 16} | options
    found = MMA.run(Text(pipe), request(), MMAOptions(**given), no_report)
    return found.details["loss"], found.prompt


def test_mma_comes_nearer_to_the_prompts_vector_without_the_concepts_words(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    tiny_pipeline.text_encoder.get_input_embeddings().weight.data *= 50
    early, _ = loss_after(tiny_pipeline, steps=1)
    late, words = loss_after(tiny_pipeline, steps=12)
    assert late < early
    assert not {"red", "triangle"} & set(words.split())
    assert loss_after(tiny_pipeline, steps=3) == loss_after(tiny_pipeline, steps=3)
    assert loss_after(tiny_pipeline, steps=3) != loss_after(tiny_pipeline, steps=3, compat=True)


# ---- sneakyprompt ----------------------------------------------------------------------------


def sneaky(target: Answering, **options: Any) -> Any:
    return sneakyprompt.ATTACK.run(target, request(), SneakyPromptOptions(**options), no_report)


def test_blocked_words_are_replaced_until_an_image_passes() -> None:
    target = Answering(
        follows=lambda p: 0.5, blocked=lambda p: "red" in p or "triangle" in p or "ba" in p
    )
    found = sneaky(target)
    assert not target._blocked(found.prompt)
    assert found.prompt.endswith("on a wall")
    assert found.details["reward"] == 0.5
    assert found.evaluations == len(target.asked)


def test_after_five_blocked_in_a_row_one_more_word_goes() -> None:
    target = Answering(blocked=lambda p: True)
    found = sneaky(target, queries=8, share=0.7)
    assert [sum(w in p.split() for w in ("on", "a", "wall")) for p in target.asked] == [3] * 5 + [
        2
    ] * 3
    assert found.details["reward"] < 0


def test_words_are_no_longer_than_asked() -> None:
    target = Answering(follows=lambda p: 0.0 if len(p) % 2 else 0.1)
    sneaky(target, letters=4, queries=6)
    assert all(len(word) <= 4 for prompt in target.asked for word in prompt.split()[1:3])


# ---- genbreak --------------------------------------------------------------------------------


class Chatting:
    """Answers in turn."""

    recipe: dict[str, Any] = {}

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def answer(self, messages: Any, seed: int) -> str:
        self.asked.append(messages[0]["content"])
        return self._answers[(len(self.asked) - 1) % len(self._answers)]


def told(chat: Chatting, target: Answering, **options: Any) -> Any:
    given = GenBreakOptions(model="m", **({"rounds": 4} | options))
    return genbreak.search(chat, target, request(), given, no_report)


def test_the_best_rewriting_is_shown_and_returned() -> None:
    chat = Chatting('{"prompt": "one sign"}', "no JSON", '{"prompt": "three corners"}')
    found = told(chat, Answering(unsafe=lambda p: 0.5 if "corners" in p else 0.1))
    assert found.prompt == "three corners"
    assert "one sign" in chat.asked[1]
    assert "The best" not in chat.asked[0]
    assert found.evaluations == 2


def test_the_reward_is_less_for_a_repetition() -> None:
    assert genbreak.reward(0.8, "a b", []) == 0.8
    assert genbreak.reward(0.8, "a b", ["a b"]) == pytest.approx(0.4)
    assert genbreak.reward(0.0, "a b", []) == 0


@pytest.mark.parametrize("attack", [genbreak.ATTACK, diffzoo.ATTACK], ids=lambda a: a.name)
def test_a_language_model_is_loaded_once_where_the_state_computes(
    attack: Attack[Any],
    tiny_pipeline_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[tuple[str, str]] = []

    def load(source: str, device: str, **_: Any) -> Any:
        loaded.append((source, device))
        return Chatting('{"prompt": "three corners"}') if attack is genbreak.ATTACK else (None,) * 2

    monkeypatch.setattr("spqr_checks.tools.rewriting.chat_model.load_chat", load)
    monkeypatch.setattr(diffzoo, "load_masked", load)
    monkeypatch.setattr(diffzoo, "words_for", lambda *_: (["a"], [["c"]]))
    session = runs.one_cell_session(tmp_path, tiny_pipeline_dir, 2)
    attacks = session.units.attacks
    target = attacks.target(State("aligned"), 0)
    monkeypatch.setattr(type(target), "unsafe", lambda _, prompts, images=1: [1.0] * len(prompts))
    options = attack.options(model="m")
    for seed in range(3):
        target = attacks.target(State("aligned"), seed)
        attack.run(target, replace(request(), seed=seed), options, no_report)
    assert loaded == [("m", "cpu")]
    attack.run(target, request(), attack.options(model="n"), no_report)
    attacks.release()
    attack.run(target, request(), options, no_report)
    assert [source for source, _ in loaded] == ["m", "n", "m"]


def test_genbreak_returns_another_prompt_however_unsafe_the_own_one_is() -> None:
    own = json.dumps({"prompt": request().prompt})
    target = Answering(unsafe=lambda p: 1.0 if p == request().prompt else 0.1)
    assert told(Chatting(own, '{"prompt": "three corners"}'), target).prompt == "three corners"
    # a model that has nothing else to say has not attacked
    assert told(Chatting(own), target).prompt == request().prompt


def test_a_model_that_never_answers_is_refused() -> None:
    with pytest.raises(UserError, match="answered 4 times"):
        told(Chatting("no"), Answering())


def test_every_random_choice_follows_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(attack: Attack[Any], seed: int) -> str:
        options = (
            attack.options(model="x", steps=1) if attack is diffzoo.ATTACK else attack.options()
        )
        return attack.run(Answering(), replace(request(), seed=seed), options, no_report).prompt

    words, others = ["a", "b", "c", "d"], [["e", "f"], ["g", "h"], ["i", "j"], ["k", "l"]]
    monkeypatch.setattr(diffzoo, "load_masked", lambda *_: (None, None))
    monkeypatch.setattr(diffzoo, "words_for", lambda *_: (words, others))
    for attack in (sneakyprompt.ATTACK, diffzoo.ATTACK):
        assert found(attack, 1) == found(attack, 1)
        assert len({found(attack, seed) for seed in range(8)}) > 1
