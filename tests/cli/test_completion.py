"""What a shell is told may follow; asked as argcomplete's scripts ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spqr_checks.cli.main import COMMANDS, main

pytest.importorskip("argcomplete", reason="the extra completion is not installed")


def words(line: str, tmp_path: Path) -> list[str]:
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    command = [sys.executable, "-m", "spqr_checks.cli"]
    subprocess.run(command, env=os.environ | asked, check=False, capture_output=True, timeout=60)
    return [word.strip() for word in answer.read_text(encoding="utf-8").split("\n")]


def test_commands_and_their_options_are_completed(tmp_path: Path) -> None:
    assert COMMANDS.keys() <= set(words("spqr ", tmp_path))
    assert {"--spqr-candidate", "--spqr-max-drift"} <= set(words("spqr run --spqr-", tmp_path))
    assert "--scorecards" not in words("spqr run --s", tmp_path)
    assert words("spqr report --im", tmp_path) == ["--images"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_ARGCOMPLETE" in capsys.readouterr().out
