"""`spqr translate` with models of the real classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from spqr_checks.cli.main import main
from spqr_checks.prompts.sources import read_file

pytestmark = pytest.mark.usefixtures("one_thread")


def write(folder: Path, *texts: str) -> Path:
    path = folder / "p.csv"
    path.write_text("\n".join(["prompt,kind", *(f"{t},benign" for t in texts)]), encoding="utf-8")
    return path


def test_there_and_back_again(
    nllb_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fr.csv"
    command = ["translate", str(write(tmp_path, "a red star", "a tree")), "--to", "fr"]
    command += ["--model", str(nllb_dir), "--out", str(out)]
    assert main(command) == 0
    assert [(p.text, p.language) for p in read_file(out).prompts] == [
        ("une etoile rouge", "fr"),
        ("un arbre", "fr"),
    ]
    assert f"2 translations are in {out}" in capsys.readouterr().out
    assert str(nllb_dir) not in out.read_text(encoding="utf-8")
    assert main(command) == 0


def test_doubt_and_failure_have_exit_codes_of_their_own(
    nllb_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "a tree", "q q q q q")
    command = ["translate", str(path), "--to", "fr", "--model", str(nllb_dir), "--out"]
    assert main([*command, str(tmp_path / "a.csv")]) == 1
    assert "1 of them are doubtful and not used unless asked: p:3@fr" in capsys.readouterr().out
    path = write(tmp_path, "a tree", "a tree " * 30)
    assert main([*command, str(tmp_path / "b.csv")]) == 3
    assert "1 failed: too long" in capsys.readouterr().out


def test_a_way_back_that_is_not_there_is_refused(
    marian_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["translate", str(write(tmp_path, "a tree")), "--to", "fr"]
    command += ["--model", str(marian_dir), "--out", str(tmp_path / "o.csv")]
    assert main(command) == 4
    assert "does not translate into 'en'" in capsys.readouterr().err
    assert main([*command, "--to", " , "]) == 4
    assert not (tmp_path / "o.csv").exists()
