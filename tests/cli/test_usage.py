"""What is typed wrongly, or broken off, is a sentence that names the command; no traceback."""

from __future__ import annotations

import logging

import pytest

from spqr_checks.cli.main import main


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "spqr: the following arguments are required: command; `spqr --help` says more"),
        ("rum", "spqr: argument command: invalid choice: 'rum'"),
        ("init --nope", "spqr init: unknown argument '--nope'; `spqr init --help` says more"),
        ("store gc", "spqr store gc: the following arguments are required: --keep"),
        ("store gc --keep 3 --nope", "spqr store gc: unknown argument '--nope'"),
        ("completion tcsh", "spqr completion: argument shell: invalid choice: 'tcsh'"),
        ("check --nope", "spqr check: unrecognized arguments: --nope; `spqr check --help`"),
        ("estimate --devices 0", "spqr estimate: argument --devices: '0' is not a number"),
        ("leaderboard --jobs", "spqr leaderboard: unrecognized arguments: --jobs"),
        ("score --\x1b[1m", "spqr score: "),
    ],
)
def test_a_mistake_in_words_names_the_command_and_ends_with_4(
    typed: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed.split()) == 4
    captured = capsys.readouterr()
    assert captured.err.startswith(said)
    assert len(captured.err.splitlines()) == 1
    assert "\x1b" not in captured.err
    assert not captured.out


@pytest.mark.parametrize("broken_off", [KeyboardInterrupt, EOFError])
def test_a_question_that_is_not_answered_ends_it_in_a_line(
    broken_off: type[BaseException],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(str(tmp_path))

    def asked(question: str) -> str:
        raise broken_off

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", asked)
    assert main(["init"]) == 2
    assert capsys.readouterr().err == "\nspqr: interrupted\n"


def test_what_libraries_lack_for_other_machines_is_not_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["completion", "none"])
    capsys.readouterr()
    logging.getLogger("torchao.kernel").warning("no triton")
    logging.getLogger("torch.utils._pytree").warning("an Enum")
    assert capsys.readouterr().err == ""
