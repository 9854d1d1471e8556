"""Tables in all their files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.errors import UserError
from spqr_checks.prompts.tables import field_name, read_rows, rows_of


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", "[1]", "p.json: row 1: expected an object"),
        ("p.json", '[\n{"prompt": }]', "p.json:2: not JSON: Expecting value"),
        ("p.json", "[" * 100_000, "p.json: not JSON: nested too deeply"),
        ("p.jsonl", "[" * 100_000, "p.jsonl:1: not JSON: nested too deeply"),
        ("p.json", "[]", "p.json: no prompts in this file"),
        ("p.json", b"[\n\xff]", "p.json:2: not UTF-8"),
        ("p.parquet", b"PAR1 no", "p.parquet: cannot be read as Parquet"),
        ("p.parquet", b"", "p.parquet: cannot be read as Parquet"),
        ("p.csv", "\na red bus on a road\na tree\n", "p.csv:2: no header: 'a red bus on a road'"),
        ("p.csv", 'prompt\n"a\n', "p.csv:2: not CSV: unexpected end of data"),
        ("p.csv", "prompt\n" + "a" * 200_000, "p.csv:2: not CSV: field larger than field limit"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read_rows(path)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.jsonl", "p.parquet"])
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_rows(tmp_path / name)


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"Parquet needs pyarrow, .*spqr-checks\[parquet\]"):
        read_rows(tmp_path / "p.parquet")


def test_a_row_begins_where_its_first_field_does(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes('\ufeffprompt\r\n"a\r\nb"\r\n\r\nc\r\n'.encode())
    assert [(n, row["prompt"]) for n, row in rows_of(path)] == [(2, "a\r\nb"), (5, "c")]


@pytest.mark.parametrize("written", ["Sensitive Prompt", " sensitive_prompt", "SENSITIVE-PROMPT "])
def test_a_field_has_one_name_however_it_is_spelled(written: str) -> None:
    assert field_name(written) == "sensitive_prompt"


values = st.one_of(st.none(), st.integers(), st.text(st.characters(exclude_categories=("Cs",))))


@given(
    st.lists(st.dictionaries(st.sampled_from(["prompt", "kind", "x"]), values, min_size=1)),
)
def test_json_and_json_lines_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "p.json").write_text(json.dumps(rows), encoding="utf-8")
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "p.jsonl").write_bytes(lines.encode())
    for name in ("p.json", "p.jsonl"):
        assert [row for _, row in rows_of(folder / name)] == rows
