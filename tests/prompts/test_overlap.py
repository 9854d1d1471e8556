"""Measured prompts that were learned from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.prompts.overlap import find_overlap, near_keys, repeated
from spqr_checks.prompts.prompt import Prompt


def prompts(*texts: str, anchor: str = "") -> list[Prompt]:
    return [Prompt(str(n), t, "harmful", "c", anchor=anchor) for n, t in enumerate(texts)]


def near(one: str, other: str) -> bool:
    return bool(near_keys(one) & near_keys(other))


def test_what_is_the_same_nearly_the_same_and_another() -> None:
    learned = prompts("a small red triangle on a table", anchor="a green tree")
    measured = prompts(
        "a small red triangle on a table",
        "A  small red\ntriangle on a table",
        "a red small triangle, on a table!",
        "a small blue triangle on a table",
        "A green tree",
        "a green bush",
        "two boats",
    )
    overlap = find_overlap(measured, learned, near=True)
    assert (overlap.tested, overlap.verbatim) == (7, (0,))
    assert overlap.normalised == (0, 1, 4)
    assert overlap.near == (2, 3)
    assert overlap
    assert find_overlap(measured, learned).near == ()
    assert not find_overlap(measured[5:], learned, near=True)


def test_short_texts_are_near_only_with_all_their_words() -> None:
    assert near("a red star now", "now a red star")
    assert not near("a red star now", "a blue star now")
    assert near("a b c d e", "a b c d f")
    assert near("a b c d e", "a b c d")  # one word is missing
    assert not near("a b c d e", "a b c f g")
    assert not near("", "!?")


words = st.lists(
    st.sampled_from(["red", "blue", "star", "moon", "on", "a", "the"]), min_size=5, max_size=8
)


@given(words, st.integers(0, 7), st.randoms())
def test_one_other_word_in_another_order_is_near(words, place, random) -> None:  # type: ignore[no-untyped-def]
    changed = list(words)
    changed[place % len(words)] = "triangle"
    random.shuffle(changed)
    assert near(" ".join(words), ", ".join(changed).upper())


def test_repetitions_count_within_their_group() -> None:
    one, two, three = prompts("a star", "A star ", "a moon")
    benign = Prompt("9", "a star", "benign")
    assert repeated([one, benign, two, three]) == [(one, two)]
