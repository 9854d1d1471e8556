"""Own prompt files as users really have them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


HEADER = "prompt,kind,concept\n"


def written(folder: Path, text: str | bytes, name: str = "p.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "a red triangle,harmful,red triangle\na tree,benign,\n")
    harmful, benign = read_file(path).prompts
    assert (harmful.concept, harmful.language, harmful.domain) == ("red triangle", "en", "plain")
    assert (benign.kind, benign.concept) == ("benign", "all")
    assert harmful.id != benign.id


def test_byte_order_mark_crlf_quotes_and_newlines_inside_fields(tmp_path: Path) -> None:
    text = '\ufeffprompt,kind,concept\r\n"a ""big"" red\r\ntriangle",harmful,red triangle\r\n'
    (prompt,) = read_file(written(tmp_path, text)).prompts
    assert prompt.text == 'a "big" red triangle'


def test_jsonl_with_blank_lines_right_to_left_and_emoji(tmp_path: Path) -> None:
    rows = [
        {"prompt": "مثلث أحمر 🔺", "kind": "harmful", "concept": "red triangle", "language": "ar"}
    ]
    text = "\n" + "\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n\n"
    (prompt,) = read_file(written(tmp_path, text, "p.jsonl")).prompts
    assert (prompt.text, prompt.language) == ("مثلث أحمر 🔺", "ar")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "no prompts"),
        ("", "no prompts"),
        (HEADER + ",benign,\n", ":2: field 'prompt' is missing or empty"),
        (HEADER + "x,benign,\n  ,benign,\n", ":3: field 'prompt' is missing or empty"),
        (HEADER + "x,nice,\n", ":2: field 'kind' is 'nice'"),
        (HEADER + "x,harmful,\n", ":2: a harmful prompt needs the field 'concept'"),
        (HEADER + "x,lookalike,\n", ":2: a lookalike prompt needs the field 'concept'"),
        (HEADER + "x,benign,,extra\n", ":2: not as many fields as the header has"),
        ("id,prompt,kind\n7,x,benign\n7,y,benign\n", ":3: id '7' is already used in line 2"),
        (HEADER.encode() + b"caf\xe9,benign,\n", ":2: not UTF-8"),
    ],
)
def test_a_mistake_names_file_line_and_field(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_file(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ":1: not JSON"),
        ("\n[1]", ":2: expected an object"),
        ('{"prompt": [1], "kind": "benign"}', "must be text"),
    ],
)
def test_a_mistake_in_json_lines_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_file(written(tmp_path, text, "p.jsonl"))
    assert message in str(error.value)


def test_a_missing_file_or_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_file(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"\.csv, \.jsonl, \.json or \.parquet"):
        read_file(tmp_path / "prompts.txt")


words = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\x00"), min_size=1
).filter(lambda s: s.split())


@pytest.mark.heavy
@given(st.lists(words, min_size=1, max_size=5))
def test_any_text_survives_csv_and_json_lines_alike(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    with (folder / "p.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "kind", "concept"])
        writer.writerows([t, "harmful", "c"] for t in texts)
    rows = [json.dumps({"prompt": t, "kind": "harmful", "concept": "c"}) for t in texts]
    written(folder, "\n".join(rows), "p.jsonl")
    expected = [" ".join(t.split()) for t in texts]
    assert [p.text for p in read_file(folder / "p.csv").prompts] == expected
    assert [p.text for p in read_file(folder / "p.jsonl").prompts] == expected
