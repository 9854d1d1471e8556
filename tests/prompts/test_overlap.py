"""Measured prompts that were learned from."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.prompts.overlap import find_leaks, find_overlap, leaks_between, near_keys, repeated
from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.tables import read_rows


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


TRAIN = "id,category,unsafe,safe\n1,signals,un triángulo rojo,a blue triangle\n"


@pytest.fixture
def train(tmp_path: Path) -> Path:
    path = tmp_path / "train.csv"
    path.write_text(TRAIN, encoding="utf-8")
    return path


def test_leaks_are_positions_in_the_test_set() -> None:
    test = ["a tree", "A  Red\ntriangle", "a red triangle", unicodedata.normalize("NFD", "né")]
    leaks = find_leaks(["a red triangle", "né"], test)
    assert (leaks.tested, leaks.verbatim, leaks.normalised) == (4, (2,), (1, 2, 3))


@given(st.lists(st.text(max_size=5), max_size=6), st.lists(st.text(max_size=5), max_size=6))
def test_verbatim_leaks_are_among_the_normalised_and_all_of_a_set_leaks_into_itself(
    train: list[str], test: list[str]
) -> None:
    leaks = find_leaks(train, test)
    assert set(leaks.verbatim) <= set(leaks.normalised)
    assert find_leaks(test, test).verbatim == tuple(range(len(test)))


def test_rows_that_do_not_leak_are_written_unchanged(train: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text(
        'prompt,image,category\n"a ""big""\ntree",0000000_0.jpg,Hate\n'
        "UN TRIÁNGULO  rojo,0000001_0.jpg,Hate\na blue triangle,0000002_0.jpg,Harrasment\n",
        encoding="utf-8",
    )
    found = leaks_between(train, test)
    assert (found.leaks.verbatim, found.leaks.normalised) == ((2,), (1, 2))
    assert [line for line, _ in found.rows] == [2, 4, 5]
    out = tmp_path / "clean.csv"
    found.write_kept(out)
    assert [row for _, row in read_rows(out)] == [
        {"prompt": 'a "big"\ntree', "image": "0000000_0.jpg", "category": "Hate"}
    ]
    before = out.read_bytes()
    with pytest.raises(UserError, match="exists and is left alone"):
        found.write_kept(out)
    assert out.read_bytes() == before


def test_anchors_count_as_training_text_and_pair_files_as_tests(
    train: Path, tmp_path: Path
) -> None:
    taught = tmp_path / "taught.jsonl"
    taught.write_text(json.dumps({"prompt": "x", "anchor": "un triángulo rojo"}), encoding="utf-8")
    assert leaks_between(taught, train).leaks.verbatim == (0,)
    with pytest.raises(UserError, match="nothing is left"):
        leaks_between(taught, train).write_kept(tmp_path / "none.csv")


def test_an_empty_anchor_is_no_training_text(tmp_path: Path, train: Path) -> None:
    taught = tmp_path / "taught.csv"
    taught.write_text("prompt,anchor\nx,\n", encoding="utf-8")
    assert leaks_between(taught, train).leaks.normalised == ()


def test_a_row_without_a_prompt_is_named(train: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("title\na tree\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"other\.csv: no field 'prompt', .* there are: title"):
        leaks_between(train, other)
