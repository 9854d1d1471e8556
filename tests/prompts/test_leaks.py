"""Test prompts that were already in the training data."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.prompts.leaks import find_leaks, leaks_between
from spqr_checks.prompts.rows import read_rows

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
    with pytest.raises(UserError, match=r"other\.csv:2: no prompt"):
        leaks_between(train, other)
