"""The similarity of a back-translation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.tools.translation.similarity import chrf

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
