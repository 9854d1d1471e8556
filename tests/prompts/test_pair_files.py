"""Pair files, and what methods learn from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.prompts.pair_files import read_pairs, write_pairs
from spqr_checks.prompts.prompt import PromptPair
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.prompts.text import is_blank, normalised

HEADER = "id,category,concept,unsafe,safe,provenance\n"
ROW = "1,signals,red triangle,a red triangle,a blue triangle,by hand\n"
TRIANGLE = PromptPair(
    "1", "signals", "a red triangle", "a blue triangle", "red triangle", "by hand"
)


def write(folder: Path, text: str, name: str = "p.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


texts = st.text().filter(lambda t: not is_blank(t))
optional = st.one_of(st.just(""), texts)
pairs = (
    st.builds(lambda *fields: fields, texts, texts, texts, texts, optional, optional)
    .filter(lambda f: normalised(f[2]) != normalised(f[3]))
    .map(lambda f: PromptPair(*f))
)


@settings(max_examples=50)
@given(st.lists(pairs, min_size=1, max_size=4, unique_by=lambda p: p.id))
def test_what_is_written_is_read_again_letter_by_letter(
    tmp_path_factory: pytest.TempPathFactory, written: list[PromptPair]
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("p.csv", "p.jsonl"):
        write_pairs(folder / name, written)
        assert read_pairs(folder / name) == written
        once = (folder / name).read_bytes()
        write_pairs(folder / name, read_pairs(folder / name))
        assert (folder / name).read_bytes() == once
    assert [path.name for path in sorted(folder.iterdir())] == ["p.csv", "p.jsonl"]


def test_concept_and_provenance_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path, '{"id": 7, "category": "c", "unsafe": "x", "safe": "y"}\n', "p.jsonl")
    assert read_pairs(path) == [PromptPair("7", "c", "x", "y")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "no prompts in this file"),
        (ROW + ROW, ":3: id '1' is already used in line 2"),
        (ROW + "2,,c,x,y,\n", ":3: field 'category' is missing or empty"),
        (ROW + "2,s,c, ,y,\n", ":3: field 'unsafe' is missing or empty"),
        (ROW + "2,s,c,x\n", ":3: field 'safe' is missing or empty"),
        (ROW + ",s,c,x,y,\n", ":3: field 'id' is missing or empty"),
        (ROW + "2,s,c,A  star,a star,\n", ":3: fields 'unsafe' and 'safe' are the same text"),
        (ROW + "2,s,c,x,y,z,more\n", ":3: not as many fields as the header has"),
        ('2,s,c,"x,y\n', ":2: "),
    ],
)
def test_a_mistake_names_file_line_and_field(tmp_path: Path, rows: str, message: str) -> None:
    path = write(tmp_path, HEADER + rows)
    with pytest.raises(UserError) as error:
        read_pairs(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": "1", "category": "c", "unsafe": ["x"], "safe": "y"}', "'unsafe' must be text"),
        ('{"id": "1", "category": "c", "unsafe": "\\ud800", "safe": "y"}', "not valid Unicode"),
    ],
)
def test_a_mistake_in_json_lines_too(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_pairs(write(tmp_path, "\n" + row, "p.jsonl"))


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "id,category,unsafe,safe,safe\n1,c,x,y,z\n")
    with pytest.raises(UserError, match=":1: the header names 'safe' twice"):
        read_pairs(path)


def test_files_that_could_not_be_read_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.csv or \.jsonl"):
        write_pairs(tmp_path / "p.txt", [TRIANGLE])
    with pytest.raises(ValueError, match="same id"):
        write_pairs(tmp_path / "p.csv", [TRIANGLE, TRIANGLE])
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_pairs(tmp_path / "folder.csv", [TRIANGLE])
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.csv"
    write_pairs(path, [TRIANGLE])
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_pairs(path, [TRIANGLE, PromptPair("2", "c", "x", "y")])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_a_prompt_set_reads_a_pair_file_directly(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_pairs(path, [TRIANGLE, PromptPair("2", "tokens", "a\nmoon", " a  tree")])
    prompts = PromptSet.load([str(path)])
    harmful, lookalike, moon, tree = prompts.prompts
    assert (harmful.id, harmful.kind) == ("1/unsafe", "harmful")
    assert (harmful.text, harmful.anchor) == ("a red triangle", "a blue triangle")
    assert (harmful.concept, harmful.category) == ("red triangle", "signals")
    assert (lookalike.id, lookalike.kind, lookalike.anchor) == ("1/safe", "lookalike", "")
    assert (lookalike.text, lookalike.concept) == ("a blue triangle", "red triangle")
    # without a concept, the category stands for it
    assert (moon.text, moon.anchor, moon.concept) == ("a moon", "a tree", "tokens")
    assert tree.text == "a tree"
    assert prompts.categories == {"red triangle": "signals", "tokens": "tokens"}


def test_pairs_and_benign_prompts_may_come_from_two_files(tmp_path: Path) -> None:
    one = write(tmp_path, HEADER + ROW)
    two = write(tmp_path, "prompt,kind\na tree,benign\n", "benign.csv")
    kinds = [p.kind for p in PromptSet.load([str(one), str(two)]).prompts]
    assert kinds == ["harmful", "lookalike", "benign"]
