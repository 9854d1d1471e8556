"""Prompt files as users really have them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.prompts.sources import read_file

HEADER = "prompt,kind,concept\n"


def write(folder: Path, text: str | bytes, name: str = "p.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "a red triangle,harmful,red triangle\na tree,benign,\n")
    harmful, benign = read_file(path).prompts
    assert (harmful.concept, harmful.language, harmful.domain) == ("red triangle", "en", "plain")
    assert (benign.kind, benign.concept) == ("benign", "all")
    assert harmful.id != benign.id


def test_byte_order_mark_crlf_quotes_and_newlines_inside_fields(tmp_path: Path) -> None:
    text = '\ufeffprompt,kind,concept\r\n"a ""big"" red\r\ntriangle",harmful,red triangle\r\n'
    (prompt,) = read_file(write(tmp_path, text)).prompts
    assert prompt.text == 'a "big" red triangle'


def test_jsonl_with_blank_lines_right_to_left_and_emoji(tmp_path: Path) -> None:
    rows = [
        {"prompt": "مثلث أحمر 🔺", "kind": "harmful", "concept": "red triangle", "language": "ar"}
    ]
    text = "\n" + "\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n\n"
    (prompt,) = read_file(write(tmp_path, text, "p.jsonl")).prompts
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
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_file(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ":1: not JSON"),
        ("\n[1]", ":2: expected an object"),
        ('{"prompt": [1]}', "must be text"),
    ],
)
def test_a_mistake_in_json_lines_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read_file(write(tmp_path, text, "p.jsonl"))
    assert message in str(error.value)


def test_a_missing_file_or_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_file(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"\.csv, \.jsonl, \.json or \.parquet"):
        read_file(tmp_path / "prompts.txt")


words = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\x00"), min_size=1
).filter(lambda s: s.split())


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
    write(folder, "\n".join(rows), "p.jsonl")
    expected = [" ".join(t.split()) for t in texts]
    assert [p.text for p in read_file(folder / "p.csv").prompts] == expected
    assert [p.text for p in read_file(folder / "p.jsonl").prompts] == expected
