"""`spqr check` and `spqr run --help`: what is known before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from nested import environment

from spqr_checks.cli.main import main
from spqr_checks.pytest_plugin.options import OPTIONS


def test_all_that_is_wrong_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--spqr-candidate", "nowhere", "--spqr-device", "abacus", "--spqr-protocol", "v9"]
    assert main(["check", *given]) == 4
    said = capsys.readouterr().err
    assert "3 things are wrong" in said
    assert all(word in said for word in ("nowhere", "abacus", "v9"))
    assert list(tmp_path.iterdir()) == []


def test_a_sound_run_is_said_to_be_one_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--spqr-candidate", "base", "--spqr-profiles", ""]) == 0
    assert capsys.readouterr().out.startswith("nothing is wrong: a run measures ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
@pytest.mark.parametrize(("seeds", "closed"), [("0", True), ("0,1,2", False)])
def test_a_gate_that_nothing_measured_can_open_is_said_before(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seeds: str,
    closed: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--spqr-candidate=base", f"--spqr-seeds={seeds}", "--spqr-min-tuning-seeds=3"]
    for command in ("check", "estimate"):
        assert main([command, *given]) == 0
        said = capsys.readouterr().out
        assert ("R needs 3 fine-tuning seeds, but has 1 of lite" in said) is closed


def test_help_of_a_run_shows_every_setting_in_groups_and_says_where_pytest_s_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: spqr run")
    assert all(f"{option.flag} " in said for option in OPTIONS)
    groups = list(dict.fromkeys(option.group for option in OPTIONS))
    assert len(groups) > 5
    assert [said.index(f"\n{group}:\n") for group in groups] == sorted(
        said.index(f"\n{group}:\n") for group in groups
    )
    assert "pytest --help" in said
    assert len(said.splitlines()) < 160


def test_a_mistake_in_options_names_the_command_that_was_typed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "--no-such-option"]) == 4
    said = capsys.readouterr().err
    assert "spqr run: error:" in said
    assert "pytest.main()" not in said


@pytest.mark.heavy
def test_collecting_quietly_prints_the_ids_of_cells(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spqr_checks.cli", "run", "--collect-only", "-q"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert "\ntest_quality.py::test_image_quality_is_kept[Q-all-all-all-aligned]\n" in result.stdout
    assert result.returncode == 0
    listed = sum("::" in line for line in result.stdout.splitlines())
    assert f"{listed} tests collected in " in result.stdout
    assert "NOTSET" not in result.stdout  # what pytest makes of a check without a cell


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("spqr-checks 0.")
