"""How near two prompts are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.tools.similarity import chrf, clip_cosine, overlap, word_overlap

words = st.lists(st.sampled_from(["red", "blue", "star", "लाल", "مثلث"]), max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a red triangle", "a blue triangle", 2 / 3),
        ("a red triangle", "A red, TRIANGLE!", 1),
        ("a star", "the moon", 0),
        ("star star", "star", 2 / 3),
        ("", "", 0),
        ("लाल त्रिभुज", "नीला त्रिभुज", 0.5),
    ],
)
def test_overlap_is_the_share_of_words_in_common(one: str, other: str, expected: float) -> None:
    assert overlap(one, other) == pytest.approx(expected)


@given(words, words)
def test_overlap_is_symmetric_within_its_range_and_one_for_equal_texts(
    one: str, other: str
) -> None:
    assert overlap(one, other) == overlap(other, one)
    assert 0 <= overlap(one, other) <= 1
    assert overlap(one, one) == (1 if one else 0)


@pytest.mark.parametrize("least", [1.5, -2.0, float("nan")])
def test_a_threshold_out_of_range_is_refused(least: float) -> None:
    with pytest.raises(UserError, match="must be from -1 to 1"):
        word_overlap(least)


def test_clip_s_cosine_is_one_for_equal_texts_and_stands_in_the_recipe(clip_dir: Path) -> None:
    similarity = clip_cosine(str(clip_dir), 0.25)
    assert similarity.measure("a red star", "a red star") == pytest.approx(1)
    near = similarity.measure("a red star", "a blue star")
    far = similarity.measure("a red star", "a large pink house on a navy background, photo style")
    assert -1 <= far < near < 0.99
    assert similarity.measure("a blue star", "a red star") == pytest.approx(near)
    assert similarity.at_least == similarity.recipe["at_least"] == 0.25
    assert similarity.recipe["clip"]


def test_a_source_that_is_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        clip_cosine(str(tmp_path))


texts = st.text("abc d", max_size=8)


@given(texts, texts)
def test_it_is_a_share_and_1_only_for_the_same_letters(one: str, other: str) -> None:
    value = chrf(one, other)
    assert 0 <= value <= 1
    if one.replace(" ", ""):
        assert chrf(one, one) == pytest.approx(1)
        assert (value > 1 - 1e-12) <= (one.replace(" ", "") == other.replace(" ", ""))


def test_it_is_the_published_formula() -> None:
    # letters: hypothesis abcd, reference abce. n-grams of 1, 2, 3, 4: common 3, 2, 1, 0
    # of 4, 3, 2, 1 on either side, so that precision and recall are equal
    share = (3 / 4 + 2 / 3 + 1 / 2 + 0 / 1) / 4
    assert chrf("ab cd", "a bce") == pytest.approx(share)
    # hypothesis ab, reference abcd: precision (1 + 1) / 2, recall (2/4 + 1/3) / 2, β = 2
    precision, recall = 1, (2 / 4 + 1 / 3) / 2
    assert chrf("ab", "abcd") == pytest.approx(5 * precision * recall / (4 * precision + recall))
    assert chrf("abcd", "ab") > chrf("ab", "abcd")  # recall weighs more


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A red Star!", "a red star"),
        ("नीला तारा", "नीला  तारा।"),
        ("نجمة زرقاء", "نجمة زرقاء."),
        ("一颗蓝色的星", "一颗蓝色的星。"),
        ("étoile", "e\u0301toile"),
    ],
)
def test_case_space_punctuation_and_composition_do_not_count(one: str, other: str) -> None:
    assert chrf(one, other) == pytest.approx(1)


@pytest.mark.parametrize(("one", "other"), [("", ""), ("a", ""), ("", "a"), ("!?", "!?")])
def test_nothing_is_like_nothing(one: str, other: str) -> None:
    assert chrf(one, other) == 0


def test_emoji_count_as_letters() -> None:
    assert chrf("🔺", "🔺") == pytest.approx(1)
    assert chrf("🔺", "🟦") == 0
