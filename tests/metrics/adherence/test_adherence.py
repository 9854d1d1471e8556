"""Cosine scores, and the rule that no answer is no score."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPModel

from spqr_checks.checks.adherence import against_base
from spqr_checks.errors import JudgeError, UserError
from spqr_checks.metrics.adherence import (
    ADHERENCES,
    AdherenceKind,
    adherence_scores,
    checked,
    scale_of,
)
from spqr_checks.metrics.clip import load_clip

PROMPTS = ["a red circle", "a blue star", "a tree", "a green house", "a ring"]
LOGITS = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=9)


def cosines(images: Sequence[Image.Image], folder: Path) -> list[float]:
    return adherence_scores(images, PROMPTS, "clip", str(folder))


class TestClip:
    def test_it_is_the_diagonal_of_all_cosines(
        self, clip_dir: Path, pictures: list[Image.Image]
    ) -> None:
        clip = load_clip(str(clip_dir))
        all_cosines = clip.embed_images(pictures) @ clip.embed_texts(PROMPTS).T
        found = cosines(pictures, clip_dir)
        assert found == pytest.approx(all_cosines.diagonal().tolist(), abs=1e-6)
        assert len(set(found)) == 5

    def test_it_equals_the_logits_of_clip_without_their_scale(
        self, clip_dir: Path, pictures: list[Image.Image]
    ) -> None:
        assert cosines(pictures, clip_dir) == pytest.approx(
            (logits(clip_dir, pictures) / load_clip(str(clip_dir)).logit_scale).tolist(), abs=1e-5
        )

    def test_negative_cosines_stay_negative(
        self, clip_dir: Path, pictures: list[Image.Image], tmp_path: Path
    ) -> None:
        shutil.copytree(clip_dir, tmp_path, dirs_exist_ok=True)
        model = CLIPModel.from_pretrained(tmp_path)
        with torch.no_grad():
            model.text_projection.weight.neg_()
        model.save_pretrained(tmp_path)
        found = cosines(pictures, clip_dir)
        assert any(found)
        assert cosines(pictures, tmp_path) == pytest.approx([-c for c in found], abs=1e-6)

    def test_a_source_of_its_own_beats_that_of_the_run(
        self, clip_dir: Path, pictures: list[Image.Image]
    ) -> None:
        own = adherence_scores(pictures, PROMPTS, f"clip={clip_dir}", "nothing/there")
        assert own == cosines(pictures, clip_dir)


class TestPickScore:
    def test_it_is_clips_logit(self, clip_dir: Path, pictures: list[Image.Image]) -> None:
        found = adherence_scores(pictures, PROMPTS, f"pickscore={clip_dir}", "")
        assert found == pytest.approx(logits(clip_dir, pictures).tolist(), abs=1e-4)
        assert max(map(abs, found)) > 1, "no cosine"


def logits(folder: Path, images: list[Image.Image]) -> torch.Tensor:
    """By the library's own forward pass."""
    clip = load_clip(str(folder))
    inputs = clip.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    pixels = clip.processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        found: torch.Tensor = clip.model(**inputs, pixel_values=pixels).logits_per_image
    return found.diagonal()


class TestAgainstTheBase:
    @given(LOGITS)
    def test_a_logit_becomes_the_preference_over_the_base(
        self, pairs: list[tuple[float, float]]
    ) -> None:
        candidate, base = [a for a, _ in pairs], [b for _, b in pairs]
        preferred, half = against_base("logit", candidate, base)
        assert half == [0.5] * len(pairs)
        for p, a, b in zip(preferred, candidate, base, strict=True):
            assert p == pytest.approx(math.exp(a) / (math.exp(a) + math.exp(b)))

    def test_equal_logits_are_a_ratio_of_one_wherever_their_zero_lies(self) -> None:
        for shift in (0.0, 20.0):
            preferred, half = against_base("logit", [1 + shift, 2 + shift], [1 + shift, 2 + shift])
            assert sum(preferred) / sum(half) == 1.0
        one, other = (
            against_base("logit", [19.0 + shift], [20.0 + shift])[0] for shift in (0, 100)
        )
        assert one == pytest.approx(other)

    @pytest.mark.parametrize("scale", ["cosine", "probability"])
    def test_other_scores_are_compared_as_they_are(self, scale: str) -> None:
        assert against_base(scale, [0.2, 0.3], [0.4, 0.5]) == ([0.2, 0.3], [0.4, 0.5])  # type: ignore[arg-type]


class Fake:
    """A scorer that answers as told."""

    def __init__(self, answers: list[float]) -> None:
        self.answers = answers

    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        return self.answers


class TestFailures:
    @pytest.mark.parametrize(
        ("scale", "answers", "what"),
        [
            ("cosine", [0.1] * 4, "4 scores for 5 images"),
            ("cosine", [0.1] * 4 + [1.5], "image 4: 1.5 is not a cosine"),
            ("probability", [-0.2] + [0.1] * 4, "image 0: -0.2 is not a probability"),
            ("logit", [20.0, float("nan"), 1, 1, 1], "image 1: nan is not a logit"),
            ("logit", [20.0, float("inf"), 1, 1, 1], "image 1: inf is not a logit"),
        ],
    )
    def test_no_answer_is_no_score(
        self,
        scale: str,
        answers: list[float],
        what: str,
        clip_dir: Path,
        pictures: list[Image.Image],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        kind = AdherenceKind(scale, lambda *_: Fake(answers))  # type: ignore[arg-type]
        monkeypatch.setattr(ADHERENCES, "get", lambda name: kind)
        ADHERENCES.model.cache_clear()
        try:
            with pytest.raises(JudgeError, match=what):
                cosines(pictures, clip_dir)
        finally:
            ADHERENCES.model.cache_clear()

    def test_rounding_is_cut_off(self) -> None:
        assert checked("x", "cosine", [1 + 1e-8, -1 - 1e-8], 2) == [1.0, -1.0]

    def test_every_image_needs_a_prompt(self, clip_dir: Path, pictures: list[Image.Image]) -> None:
        with pytest.raises(ValueError, match="5 images but 4 prompts"):
            adherence_scores(pictures, PROMPTS[:4], "clip", str(clip_dir))

    @pytest.mark.parametrize(
        ("spec", "clip", "what"),
        [
            ("claps", "x", "unknown adherence 'claps'; there are: clip, open_clip"),
            ("vqa", "x", "adherence 'vqa' names no model; write vqa=PATH"),
            ("vqa=", "x", "names no model"),
            ("clip=", "x", "names no model"),
            ("clip", "", "needs a CLIP model: set --spqr-clip"),
        ],
    )
    def test_a_mistake_is_named(self, spec: str, clip: str, what: str) -> None:
        with pytest.raises(UserError, match=what):
            scale_of(spec, clip)


def test_every_score_says_what_its_numbers_are() -> None:
    assert {name: ADHERENCES.get(name).scale for name in ADHERENCES.names()} == {
        "clip": "cosine",
        "open_clip": "cosine",
        "pickscore": "logit",
        "vqa": "probability",
    }
    assert scale_of("open-clip=x", "") == "cosine"
