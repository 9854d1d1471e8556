"""CoProV2's files, with harmless stand-ins for their prompts."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.prompts.formats.coprov2 import training_pairs
from spqr_checks.prompts.prompt import PromptPair
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.prompts.sources import read_file
from spqr_checks.prompts.tables import read_rows

HEADER = "prompt,image,category\n"
PAIR = "a red triangle,u_idx_0000012_0.jpg,Hate\na blue triangle,s_idx_0000012_0.jpg,Hate\n"


def write(folder: Path, text: str | bytes, name: str = "train.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def pairs_in(path: Path) -> list[PromptPair]:
    return training_pairs(path, read_rows(path))


def test_rows_are_paired_by_the_id_in_their_image_names_whatever_their_order(
    tmp_path: Path,
) -> None:
    rows = (
        "a blue square,s_idx_0000003_0.jpg,self-harm\n"
        + PAIR
        + "a yellow star,u_idx_0000003_0.jpg,self-harm\n"
    )
    star, triangle = pairs_in(write(tmp_path, HEADER + rows))
    assert (star.id, star.category) == ("train:0000003", "self-harm")
    assert (star.unsafe, star.safe) == ("a yellow star", "a blue square")
    assert (triangle.id, triangle.category) == ("train:0000012", "hate")
    assert (triangle.unsafe, triangle.safe) == ("a red triangle", "a blue triangle")


def test_exact_repeats_are_dropped_and_counted(tmp_path: Path) -> None:
    reading = read_file(write(tmp_path, HEADER + PAIR + PAIR + PAIR))
    assert (reading.rows, len(reading.prompts), reading.reasons) == (6, 2, {"repeated": 4})


def test_a_pair_that_is_listed_under_several_categories_is_one_pair(tmp_path: Path) -> None:
    # as 321 pairs of the published file are
    again = PAIR.replace("Hate", "Violence")
    path = write(tmp_path, HEADER + PAIR + again + PAIR)
    (pair,) = pairs_in(path)
    assert pair.category == "hate"
    assert read_file(path).reasons == {"listed again under another category": 2, "repeated": 2}


@pytest.mark.parametrize(
    ("written", "category"),
    [
        ("Harrasment", "harassment"),
        ("harassment", "harassment"),
        ("Illegal Activity", "illegal activity"),
        ("illegal_activity", "illegal activity"),
        ("self-harm", "self-harm"),
        ("Self Harm", "self-harm"),
        ("sexual", "sexual"),
        ("Shocking", "shocking"),
        (" HATE ", "hate"),
        ("Violence", "violence"),
    ],
)
def test_spellings_of_categories_meet_in_one_taxonomy(
    tmp_path: Path, written: str, category: str
) -> None:
    (pair,) = pairs_in(write(tmp_path, HEADER + PAIR.replace("Hate", written)))
    assert pair.category == category


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "a red triangle,u_idx_0000012_0.jpg,Hate\n",
            ":2: id 0000012 has no safe twin (s_idx_0000012_0.jpg)",
        ),
        (
            PAIR + "a blue square,s_idx_0000003_0.jpg,Hate\n",
            ":4: id 0000003 has no unsafe twin (u_idx_0000003_0.jpg)",
        ),
        (
            PAIR + "a red star,u_idx_0000012_0.jpg,Hate\n",
            ":4: id 0000012 has another unsafe prompt in line 2",
        ),
        (
            PAIR + "A blue triangle,s_idx_0000012_0.jpg,Hate\n",
            ":4: id 0000012 has another safe prompt in line 3",
        ),
        (
            PAIR + "a red triangle,u_idx_0000012_0.jpg,sexual\n",
            ":3: id 0000012 is in hate but its unsafe twin (line 2) in hate, sexual",
        ),
        (PAIR + " ,u_idx_0000003_0.jpg,Hate\n", ":4: field 'prompt' is missing or empty"),
        (PAIR + "\u200b,u_idx_0000003_0.jpg,Hate\n", ":4: field 'prompt' is missing or empty"),
        (PAIR.replace("Hate", "unicorns"), ":2: unknown category 'unicorns'; there are: harassm"),
        (PAIR + "a star,0000003_0.jpg,Hate\n", ":4: '0000003_0.jpg' is a test image"),
        (PAIR + "a star,star.png,Hate\n", ":4: 'star.png' is not how CoProV2 names images"),
        (PAIR + "a star,u_idx_12_0.jpg,Hate\n", ":4: 'u_idx_12_0.jpg' is not how"),
        (PAIR.replace("blue", "red"), ":3: id 0000012: fields 'unsafe' and 'safe' are the same"),
        (
            PAIR + "a star,u_idx_0000003_0.jpg,Hate,more\n",
            ":4: not as many fields as the header has",
        ),
        ("", ": no prompts in this file"),
    ],
)
def test_a_mistake_names_the_line_and_the_id(tmp_path: Path, rows: str, message: str) -> None:
    path = write(tmp_path, HEADER + rows)
    with pytest.raises(UserError) as error:
        pairs_in(path)
    assert f"{path}{message}" in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_byte_order_mark_crlf_quotes_and_line_breaks_inside_fields(tmp_path: Path) -> None:
    text = (
        "\ufeffprompt,image,category\r\n"
        '"a ""big"" red\r\ntriangle, drawn",u_idx_0000012_0.jpg,Hate\r\n'
        '"a blue\ntriangle",s_idx_0000012_0.jpg,Hate\r\n'
        ",u_idx_0000013_0.jpg,Hate\r\n"
    )
    with pytest.raises(UserError, match=":6: field 'prompt' is missing"):
        pairs_in(write(tmp_path, text))
    (pair,) = pairs_in(write(tmp_path, "".join(text.splitlines(keepends=True)[:-1])))
    assert pair.unsafe == 'a "big" red\r\ntriangle, drawn'
    harmful, lookalike = pair.prompts
    assert harmful.text == 'a "big" red triangle, drawn'
    assert harmful.anchor == lookalike.text == "a blue triangle"


def test_other_columns_are_ignored(tmp_path: Path) -> None:
    text = (
        "n,category,image,prompt\n0,Hate,u_idx_0000012_0.jpg,a star\n1,Hate,s_idx_0000012_0.jpg,x\n"
    )
    assert pairs_in(write(tmp_path, text))[0].unsafe == "a star"


TEST_ROWS = (
    "a green moon,0000000_0.jpg,Hate\n"
    "a red triangle,0000001_0.jpg,Harrasment\n"
    '"A  red\ntriangle",0000002_0.jpg,Hate\n'
    "a blue triangle,0000003_0.jpg,Hate\n"
    "a green moon,0000000_0.jpg,Hate\n"
)


def test_the_test_file_holds_unsafe_prompts_only(tmp_path: Path) -> None:
    test = read_file(write(tmp_path, HEADER + TEST_ROWS, "test.csv"))
    assert [p.id for p in test.prompts] == [f"test:000000{n}" for n in range(4)]
    assert (test.prompts[1].category, test.prompts[1].text) == ("harassment", "a red triangle")
    assert (test.rows, test.reasons) == (5, {"repeated": 1})


def test_the_wrong_one_of_the_two_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=":7: 'u_idx_0000012_0.jpg' is a training image"):
        read_file(write(tmp_path, HEADER + TEST_ROWS.replace("A  red\ntri", "A tri") + PAIR))
    with pytest.raises(UserError, match=":2: '0000000_0.jpg' is a test image"):
        pairs_in(write(tmp_path, HEADER + TEST_ROWS))


def test_a_prompt_set_reads_both_files_directly(tmp_path: Path) -> None:
    train = PromptSet.load([str(write(tmp_path, HEADER + PAIR))])
    harmful, lookalike = train.prompts
    assert (harmful.kind, harmful.concept, harmful.category) == ("harmful", "hate", "hate")
    assert (harmful.text, harmful.anchor) == ("a red triangle", "a blue triangle")
    assert (lookalike.kind, lookalike.text, lookalike.concept) == (
        "lookalike",
        "a blue triangle",
        "hate",
    )
    test = PromptSet.load([str(write(tmp_path, HEADER + TEST_ROWS, "test.csv"))])
    assert {p.kind for p in test.prompts} == {"harmful"}
    assert {p.anchor for p in test.prompts} == {""}
    assert test.concepts == ("harassment", "hate")


def test_a_prompt_file_that_has_an_image_column_too_stays_a_prompt_file(tmp_path: Path) -> None:
    text = "prompt,image,category,kind,concept\na star,star.png,signals,harmful,star\n"
    (prompt,) = PromptSet.load([str(write(tmp_path, text))]).prompts
    assert (prompt.concept, prompt.category) == ("star", "signals")


@settings(max_examples=50)
@given(st.data())
def test_any_shuffled_and_repeated_file_gives_the_same_pairs(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip)
    ids = data.draw(st.sets(st.integers(0, 9_999_999), min_size=1, max_size=4))
    expected, rows = {}, []
    for number in ids:
        stem = data.draw(text)
        expected[f"t:{number:07d}"] = (f"a {stem} triangle", f"b {stem} circle")
        for side, prompt in zip("us", expected[f"t:{number:07d}"], strict=True):
            row = [prompt, f"{side}_idx_{number:07d}_0.jpg", "Shocking"]
            rows += [row] * data.draw(st.integers(1, 2))
    random.Random(0).shuffle(rows)
    path = tmp_path_factory.mktemp("coprov2") / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["prompt", "image", "category"], *rows])
    assert {p.id: (p.unsafe, p.safe) for p in pairs_in(path)} == expected
    assert read_file(path).reasons.get("repeated", 0) == len(rows) - 2 * len(ids)
