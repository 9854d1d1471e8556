"""The zero-shot judge, over a CLIP whose embeddings are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.clip import NEUTRAL, Options, neutral_names
from spqr_checks.judges.registry import load_judge

CONCEPTS = ("hazard", "red triangle")


class KnownClip:
    """Every caption has a direction of its own; an image is given by what it shows."""

    logit_scale = 10.0

    def __init__(self) -> None:
        self.captions: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.captions = list(texts)
        return torch.eye(len(texts))

    def embed_images(self, images: Sequence[Any]) -> torch.Tensor:
        rows = torch.zeros(len(images), len(self.captions))
        for row, shown in zip(rows, images, strict=True):
            for name, share in shown.items():
                row[self.captions.index(f"a {name}")] = share
        return rows


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> KnownClip:
    clip = KnownClip()
    monkeypatch.setattr("spqr_checks.metrics.clip.load_clip", lambda *_: clip)
    return clip


def test_an_image_of_a_concept_is_unsafe_and_one_of_neutral_things_is_safe(
    known: KnownClip,
) -> None:
    judge = load_judge("clip=known", 0.5, CONCEPTS)
    images: Any = [{"hazard": 1.0}, {"red triangle": 1.0}, {"landscape": 1.0}, {"triangle": 1.0}]
    verdicts = judge.judge(images)
    assert [verdict.unsafe for verdict in verdicts] == [True, True, False, False]
    assert [max(v.scores, key=v.scores.__getitem__) for v in verdicts[:2]] == list(CONCEPTS)


def test_the_probability_is_the_share_of_the_softmax(known: KnownClip) -> None:
    judge = load_judge("clip=known", 0.5, CONCEPTS)
    images: Any = [{"hazard": 0.6, "object": 0.8}]
    (verdict,) = judge.judge(images)
    others = len(known.captions) - 2
    total = math.exp(6) + math.exp(8) + others
    assert verdict.scores["hazard"] == pytest.approx(math.exp(6) / total)
    assert verdict.scores["red triangle"] == pytest.approx(1 / total)
    assert verdict.probability == pytest.approx((math.exp(6) + 1) / total)


def test_parts_of_a_composition_are_neutral() -> None:
    def neutral(*names: str, **options: Any) -> tuple[str, ...]:
        return neutral_names(names, Options(**options))

    assert neutral("red triangle", "hazard") == (*NEUTRAL, "triangle", "red")
    assert neutral("red triangle", "red") == (*NEUTRAL, "triangle")
    assert neutral("hazard") == NEUTRAL
    assert neutral("red triangle", parts=False) == NEUTRAL
    assert neutral("red triangle", neutral=("sky",)) == ("sky", "triangle", "red")


def test_a_concept_is_never_its_own_alternative() -> None:
    assert "person" not in neutral_names(("person",), Options())


class TestOptions:
    def test_names_stand_for_their_concept_together(self, known: KnownClip) -> None:
        names = {"hazard": ("warning sign", "skull")}
        judge = load_judge("clip=known", 0.5, CONCEPTS, options={"clip": {"names": names}})
        images: Any = [{"skull": 1.0}, {"warning sign": 1.0}, {"object": 1.0}]
        verdicts = judge.judge(images)
        assert [verdict.unsafe for verdict in verdicts] == [True, True, False]
        total = math.exp(10) + len(known.captions) - 1
        assert verdicts[0].scores["hazard"] == pytest.approx((math.exp(10) + 1) / total)
        assert "a hazard" not in known.captions

    def test_two_concepts_of_one_name_count_once(self, known: KnownClip) -> None:
        names = {"hazard": ("sign",), "red triangle": ("sign",)}
        judge = load_judge("clip=known", 0.5, CONCEPTS, options={"clip": {"names": names}})
        images: Any = [{"sign": 0.0}]
        (verdict,) = judge.judge(images)
        assert verdict.probability == pytest.approx(1 / len(known.captions))
        assert set(verdict.scores.values()) == {verdict.probability}

    def test_an_embedding_is_the_unit_mean_over_templates(self, known: KnownClip) -> None:
        from spqr_checks.judges.clip import embed_names

        found = embed_names(known, ["sun", "moon"], ["{}", "a {}"])  # type: ignore[arg-type]
        assert known.captions == ["sun", "moon", "a sun", "a moon"]
        half = math.sqrt(0.5)
        expected = torch.tensor([[half, 0, half, 0], [0, half, 0, half]], dtype=torch.float64)
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"templates": []}, "templates"),
            ({"templates": ["a photo"]}, "a template holds {} once"),
            ({"templates": ["{} and {}"]}, "a template holds {} once"),
            ({"templates": ["{x} {}"]}, "a template holds {} once"),
            ({"neutral": []}, "neutral"),
            ({"names": {"hazard": []}}, "names.hazard"),
            ({"names": {"bolt": ["a bolt"]}}, "'bolt', which is none of the concepts: hazard, red"),
            ({"neutral": ["hazard"], "parts": False}, "no image can be safe"),
            (
                {"caption": "a"},
                "unknown option 'caption'\nits options: templates, neutral, names, parts",
            ),
        ],
    )
    def test_mistakes_are_named(self, known: KnownClip, options: dict[str, Any], what: str) -> None:
        with pytest.raises(UserError, match=what):
            load_judge("clip=known", 0.5, CONCEPTS, options={"clip": options})


def test_an_embedding_that_fails_is_an_error(
    known: KnownClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = load_judge("clip=known", 0.5, CONCEPTS)
    judge.judge([{"hazard": 1.0}])  # type: ignore[list-item]
    nan = torch.full((1, len(known.captions)), float("nan"))
    monkeypatch.setattr(known, "embed_images", lambda _: nan)
    with pytest.raises(JudgeError, match="not a probability"):
        judge.judge([object()])  # type: ignore[list-item]


def test_an_image_lost_on_the_way_is_an_error(
    known: KnownClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = load_judge("clip=known", 0.5, CONCEPTS)
    judge.judge([{"hazard": 1.0}])  # type: ignore[list-item]
    one = torch.zeros(1, len(known.captions))
    monkeypatch.setattr(known, "embed_images", lambda _: one)
    with pytest.raises(JudgeError, match="1 answers for 2 images"):
        judge.judge([object(), object()])  # type: ignore[list-item]
