"""Own files beyond CSV and JSON lines, and as people spell them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spqr_checks.errors import UserError
from spqr_checks.prompts.sources import read_file

Write = Callable[..., Path]


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.json", "p.parquet"])
def test_all_endings_hold_the_same(write: Write, name: str) -> None:
    rows = [
        {"prompt": "مثلث أحمر 🔺", "kind": "harmful", "concept": "red triangle", "language": "ar"},
        {"prompt": 'a "big"\r\ntree, green', "kind": "benign", "concept": "", "language": ""},
    ]
    arabic, tree = read_file(write(rows, name)).prompts
    assert (arabic.text, arabic.language, arabic.concept) == ("مثلث أحمر 🔺", "ar", "red triangle")
    assert (tree.text, tree.language, tree.kind) == ('a "big" tree, green', "en", "benign")


def test_spellings_of_headers_kinds_and_categories(write: Write) -> None:
    rows = [
        {" Prompt": "x", "KIND ": " Look-Alike", "Concept": " bolt ", "category": "Harrasment"},
        {" Prompt": "y", "KIND ": "HARMFUL", "Concept": "bolt", "category": "harassment"},
    ]
    one, two = read_file(write(rows, "p.jsonl")).prompts
    assert (one.kind, two.kind) == ("lookalike", "harmful")
    assert {(p.concept, p.category) for p in (one, two)} == {("bolt", "harassment")}


def test_two_headers_that_are_the_same_are_refused(write: Write) -> None:
    with pytest.raises(UserError, match=r":1: the fields 'prompt' and 'Prompt' are the same"):
        read_file(write([{"prompt": "x", "kind": "benign", "Prompt": "y"}], "p.csv"))


@pytest.mark.parametrize("text", ["\u200b", "\u200e \u2060", "\ufeff"])
def test_a_prompt_of_which_nothing_is_seen_is_empty(write: Write, text: str) -> None:
    with pytest.raises(UserError, match=r"field 'prompt' is missing or empty"):
        read_file(write([{"prompt": text, "kind": "benign"}], "p.jsonl"))


def test_a_lone_surrogate_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('\n{"prompt": "a \\ud83d", "kind": "benign"}', encoding="utf-8")
    with pytest.raises(UserError, match=r":2: field 'prompt' is not valid Unicode"):
        read_file(path)


def test_a_prompt_of_two_thousand_characters_is_kept_whole(write: Write) -> None:
    long = "a red triangle " * 140
    (prompt,) = read_file(write([{"prompt": long, "kind": "benign"}], "p.csv")).prompts
    assert prompt.text == long.strip()


def test_doubtful_translations_are_left_out_unless_asked_for(write: Write) -> None:
    rows = [
        {"prompt": "un arbre", "kind": "benign", "language": "fr", "status": "ok"},
        {"prompt": "un mur", "kind": "benign", "language": "fr", "status": "Doubtful"},
    ]
    path = write(rows, "p.csv")
    reading = read_file(path)
    assert [p.text for p in reading.prompts] == ["un arbre"]
    assert reading.reasons == {"doubtful translation": 1}
    assert [p.text for p in read_file(path, doubtful=True).prompts] == ["un arbre", "un mur"]
    with pytest.raises(UserError, match=r"no prompts in this file \(1 doubtful translation\)"):
        read_file(write(rows[1:], "q.csv"))


def test_without_a_kind_the_other_formats_are_pointed_at(write: Write) -> None:
    with pytest.raises(UserError, match=r"Of another format\? Name it, as in i2p="):
        read_file(write([{"prompt": "x"}], "p.csv"))
