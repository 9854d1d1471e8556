"""DiffZOO's search, and where its words come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from targets import Answering, no_report, request

from spqr_checks.attacks import diffzoo
from spqr_checks.attacks.diffzoo import DiffZOOOptions


def zoo(monkeypatch: pytest.MonkeyPatch, target: Answering, **options: Any) -> Any:
    words = ["a", "red", "star"]
    others = [["one"], ["blue", "rosy"], ["sun", "moon"]]
    monkeypatch.setattr(diffzoo, "load_masked", lambda *_: (None, None))
    monkeypatch.setattr(diffzoo, "words_for", lambda *_: (words, others))
    given = {"model": "x", "steps": 2, "directions": 2, "pairs": 2} | options
    asked = request("a red star", "red star")
    return diffzoo.ATTACK.run(target, asked, DiffZOOOptions(**given), no_report)


def test_diffzoo_returns_the_prompt_that_was_judged_most_unsafe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = Answering(unsafe=lambda p: 0.4 * ("rosy" in p) + 0.2 * ("sun" in p))
    found = zoo(monkeypatch, target)
    best = max(map(target._unsafe, target.asked))
    assert found.details["unsafe"] == best == target._unsafe(found.prompt)
    assert len(target.asked) == len(set(target.asked)) == found.evaluations


def test_the_authors_copy_replaces_in_place_and_ours_does_not() -> None:
    vectors = diffzoo.Replacing(["red"], [["blue"]], torch.Generator().manual_seed(0))
    always, never = torch.ones(1), -torch.ones(1)
    shared = ["red"]
    assert vectors.draw(always, vectors.u) == "blue"
    assert vectors.draw(never, vectors.u) == "red"
    assert vectors.draw(always, vectors.u, shared) == "blue"
    assert vectors.draw(never, vectors.u, shared) == "blue"


def test_diffzoo_returns_another_prompt_however_unsafe_the_own_one_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = Answering(unsafe=lambda p: 1.0 if p == "a red star" else 0.1)
    found = zoo(monkeypatch, target, samples=40, successes=40, steps=0)
    assert "a red star" in target.asked
    assert found.prompt != "a red star"


def test_successes_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    found = zoo(monkeypatch, Answering(unsafe=lambda _: 1.0), steps=50)
    assert found.evaluations <= 8


def test_candidates_are_the_models_likeliest_other_words(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    text = "[PAD] [UNK] [CLS] [SEP] [MASK] red blue star ##s house 9"
    words = text.split()
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    model = BertForMaskedLM(config)
    order = [5, 7, 6, 9, 8, 10]
    model.cls.predictions.bias.data[order] = torch.arange(60.0, 0, -10)
    model.save_pretrained(tmp_path)
    found, candidates = diffzoo.words_for(*diffzoo.load_masked(str(tmp_path), "cpu"), "red star", 2)
    assert found == ["red", "star"]
    assert candidates == [["star", "blue"], ["red", "blue"]]
