"""`spqr prompts check`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from spqr_checks.cli.main import main

HEADER = "id,prompt,kind,concept,category,language,domain\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.csv"
    rows = [
        "1,a small red triangle on a table,harmful,red triangle,signals,en,plain",
        "2,a tree,benign,,,en,plain",
        "3,un arbre,benign,,,fr,plain",
    ]
    path.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def run(*arguments: object) -> tuple[int, str]:
        code = main(["prompts", "check", *map(str, arguments)])
        return code, "".join(capsys.readouterr())

    return run


def test_groups_are_counted(own: Path, say) -> None:  # type: ignore[no-untyped-def]
    code, text = say(own)
    assert code == 0
    assert f"{own}: own, 3 rows, 3 prompts, 0 left out" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["benign", "all", "all", "fr", "plain", "1"] in lines
    assert ["harmful", "red", "triangle", "signals", "en", "plain", "1"] in lines


def test_what_was_left_out_is_said_with_reason_and_rows(tmp_path: Path, say) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "i2p.json"
    rows = [{"prompt": text, "categories": "hate, sexual"} for text in ("a star", "A star", "")]
    path.write_text(json.dumps(rows), encoding="utf-8")
    code, text = say(path)
    assert code == 0
    assert "i2p, 3 rows, 1 prompts, 2 left out" in text
    assert "1 repeated (rows 2)" in text
    assert "1 empty (rows 3)" in text
    assert "3 rows have several categories" in text


def test_repetitions_within_a_group_are_found(own: Path, say) -> None:  # type: ignore[no-untyped-def]
    with own.open("a", encoding="utf-8") as file:
        file.write("4,A  tree,benign,,,en,plain\n5,a tree,benign,,,fr,plain\n")
    code, text = say(own)
    assert code == 1
    assert "repeated: 4 has the text of 2, in the same group" in text
    assert "repeated: 5" not in text


def test_prompts_that_are_cut_off_are_named_with_their_tokens(
    own: Path, say, tiny_pipeline_dir: Path
) -> None:  # type: ignore[no-untyped-def]
    code, text = say(own, "--base", tiny_pipeline_dir)
    assert (code, "no prompt is cut off" in text) == (0, True)
    with own.open("a", encoding="utf-8") as file:
        file.write(f"9,{'red ' * 100},benign,,,en,plain\n")
    code, text = say(own, "--base", tiny_pipeline_dir)
    assert code == 1
    assert "cut off: 9 has 102 tokens of " in text
    code, text = say(own, "--base", tiny_pipeline_dir, "--max-tokens", 200)
    assert code == 0
    assert say(own, "--max-tokens", 200)[0] == 4


def test_overlap_with_alignment_prompts_is_reported_and_not_refused(
    own: Path, tmp_path: Path, say
) -> None:  # type: ignore[no-untyped-def]
    learned = tmp_path / "pairs.csv"
    learned.write_text(
        "id,category,unsafe,safe\n1,signals,A tree,a small blue triangle on a table\n",
        encoding="utf-8",
    )
    code, text = say(own, "--alignment", learned)
    assert code == 1
    assert (
        "of 3 prompts, 0 are learned from verbatim, 1 but for case and white space; 1 more" in text
    )
    assert "\nlearned from: 2" in text
    assert "nearly learned from: 1" in text
    assert say(own, "--alignment", "neutral")[0] == 0


@pytest.mark.heavy
def test_prompts_that_read_as_another_language_are_named(own: Path, say) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("py3langid")
    code, text = say(own, "--languages")
    assert (code, "no prompt reads as another language" in text) == (0, True)
    with own.open("a", encoding="utf-8") as file:
        file.write("4,a dog runs over a green field,benign,,,hi,plain\n5,x,benign,,,tlh,plain\n")
    code, text = say(own, "--languages")
    assert code == 1
    assert "language: 4 is said to be hi and reads as en (P(hi) = " in text
    assert "not told: 1 prompts in tlh\nnot told: 2 prompts shorter than 20 bytes" in text


def test_languages_need_their_extra(own: Path, say, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from spqr_checks.tools import language_identification

    language_identification._identifier.cache_clear()
    for name in ("py3langid", "py3langid.langid"):
        monkeypatch.setitem(sys.modules, name, None)
    code, text = say(own, "--languages")
    assert code == 4
    assert text.endswith("pip install 'spqr-checks[languages]'\n")


def test_a_mistake_ends_with_exit_code_4(tmp_path: Path, say) -> None:  # type: ignore[no-untyped-def]
    code, text = say(tmp_path / "none.csv")
    assert (code, "no such file" in text) == (4, True)
