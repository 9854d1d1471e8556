"""`spqr pairs`, as a parser that the command line holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spqr_checks.cli import pairs
from spqr_checks.cli.main import command_parser
from spqr_checks.errors import UserError
from spqr_checks.prompts.pair_files import read_pairs, write_pairs
from spqr_checks.prompts.prompt import PromptPair

Run = Callable[..., int]


@pytest.fixture
def run(table_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Parses and runs the arguments after ``spqr pairs``."""
    monkeypatch.setattr(pairs, "TABLES", {"shapes": lambda: table_values})

    def call(*arguments: object) -> int:
        given = ["pairs", *map(str, arguments)]
        options = command_parser(given).parse_args(given)
        code: int = options.command(options)
        return code

    return call


def test_pairs_of_a_named_table_are_built_and_pass_the_check(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.csv"
    assert run("build", "--table", "shapes", "--count", 3, "--out", out) == 0
    assert len(read_pairs(out)) == 6
    captured = capsys.readouterr()
    assert "6 of 6 pairs are in" in captured.out
    assert "token length: not checked" in captured.err
    assert run("check", out) == 0
    assert "6 of 6 pairs are without fault" in capsys.readouterr().out


def test_what_is_missing_is_counted_and_gives_exit_code_3(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.csv"
    assert run("build", "--table", "shapes", "--count", 5, "--out", out) == 3
    text = capsys.readouterr().out
    assert "8 of 10 pairs are in" in text
    assert "2 failed: exhausted" in text
    assert "pairs.csv.report.json" in text


def test_a_concepts_file_chooses_from_a_table_file(
    run: Run, tmp_path: Path, table_values: dict[str, Any]
) -> None:
    concepts = tmp_path / "concepts.toml"
    concepts.write_text('warnings = ["star"]\n', encoding="utf-8")
    table = tmp_path / "t.toml"
    table.write_text(
        'name = "t"\ntemplates = ["a {shape}", "a fine {shape}"]\n[slots]\n'
        'shape = ["star", "moon"]\n[concepts.star]\ncategory = "c"\n'
        'shown_by = {shape = "star"}\nreplace = {shape = ["moon"]}\n',
        encoding="utf-8",
    )
    out = tmp_path / "pairs.jsonl"
    build = ("build", "--table", table, "--concepts", concepts, "--count", 2, "--out", out)
    assert run(*build) == 0
    assert {(p.category, p.unsafe, p.safe) for p in read_pairs(out)} == {
        ("warnings", "a star", "a moon"),
        ("warnings", "a fine star", "a fine moon"),
    }
    concepts.write_text('warnings = ["sun"]\n', encoding="utf-8")
    with pytest.raises(UserError, match="has no concept 'sun'"):
        run(*build)


def test_a_tokenizer_limits_what_is_built(run: Run, tmp_path: Path, clip_dir: Path) -> None:
    out = tmp_path / "pairs.csv"
    limits = ("--tokenizer", clip_dir, "--max-tokens", 4)
    assert run("build", "--table", "shapes", "--count", 3, "--out", out, *limits) == 3
    reasons = json.loads((tmp_path / "pairs.csv.report.json").read_text())["failed"]
    assert set(reasons) == {"too long"}


def test_a_chat_model_is_asked_and_its_noise_is_reported(
    run: Run, tmp_path: Path, chat_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    concepts = tmp_path / "concepts.toml"
    concepts.write_text('warnings = ["bolt"]\n', encoding="utf-8")
    out = tmp_path / "pairs.csv"
    build = ("build", "--model", chat_dir, "--out", out, "--count", 1)
    with pytest.raises(UserError, match="needs --concepts FILE"):
        run(*build)
    assert run(*build, "--concepts", concepts, "--max-new-tokens", 4, "--retries", 0) == 3
    assert "1 failed: unparsable" in capsys.readouterr().out
    assert not out.exists()
    with pytest.raises(UserError, match="--retries is -1"):
        run(*build, "--concepts", concepts, "--retries", -1)


def test_the_check_names_faults_by_id_and_gives_exit_code_1(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.csv"
    triangle = "a red triangle"
    write_pairs(
        path,
        [
            PromptPair("1", "c", triangle, "a blue triangle", "red triangle"),
            PromptPair("2", "c", triangle + " here", "a triangle in red here", "red triangle"),
            PromptPair("3", "c", "a fine red triangle", "un triángulo rojo fine", "red triangle"),
            PromptPair("4", "c", triangle, "a green triangle", "red triangle"),
        ],
    )
    assert run("check", path, "--min-similarity", 0) == 1
    text = capsys.readouterr().out
    assert "2: names the concept" in text
    assert "4: duplicate" in text
    assert "2 of 4 pairs are without fault" in text
    concepts = tmp_path / "concepts.toml"
    concepts.write_text('[c]\n"Red Triangle" = ["triángulo rojo"]\n', encoding="utf-8")
    assert run("check", path, "--min-similarity", 0, "--concepts", concepts) == 1
    text = capsys.readouterr().out
    assert "3: names the concept" in text
    assert "1 of 4 pairs are without fault" in text


def test_the_check_reads_coprov2_s_training_file(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.csv"
    path.write_text(
        "prompt,image,category\na red triangle,u_idx_0000001_0.jpg,Hate\n"
        "a hate triangle,s_idx_0000001_0.jpg,Hate\n",
        encoding="utf-8",
    )
    assert run("check", path) == 1
    assert "train:0000001: names the concept" in capsys.readouterr().out


def test_leaks_are_counted_and_the_rest_can_be_written(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    write_pairs(train, [PromptPair("1", "c", "a red triangle", "a blue triangle")])
    test.write_text(
        "prompt,image,category\nA red triangle,0000000_0.jpg,Hate\n"
        "a blue triangle,0000001_0.jpg,Hate\na moon,0000002_0.jpg,Hate\n",
        encoding="utf-8",
    )
    assert run("leaks", train, test) == 1
    text = capsys.readouterr().out
    assert "1 of 3 test prompts are in the training data verbatim" in text
    assert "2 but for case and white space" in text
    assert "lines 2, 3" in text
    out = tmp_path / "clean.csv"
    assert run("leaks", train, test, "--out", out) == 0
    assert "1 test prompts are in" in capsys.readouterr().out
    assert run("leaks", train, out) == 0


def test_max_tokens_needs_a_tokenizer(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--max-tokens needs --tokenizer"):
        run("build", "--table", "shapes", "--out", tmp_path / "p.csv", "--max-tokens", 5)
    assert not list(tmp_path.iterdir())


def test_the_parser_and_tables_do_not_load_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from spqr_checks.cli.main import main\n"
        "assert main(['pairs', 'build', '--table', 'miniature', '--out', sys.argv[1]]) == 0\n"
        "assert main(['pairs', 'check', sys.argv[1]]) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "p.csv")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
