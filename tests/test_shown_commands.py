"""Every command on README and the docs' pages is one that this version understands.

All are parsed with the parsers that they would meet, settings included. What takes seconds and
needs no network is run; why the rest is not, `NOT_RUN` says.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from shown_commands import PAGES, ROOT, Command, blocks, shown, started, typed

from spqr_checks.cli.estimate import _parser as estimating_parser
from spqr_checks.cli.leaderboard import _parser as leaderboard_parser
from spqr_checks.cli.main import command_parser, main
from spqr_checks.errors import UserError
from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.settings import load_settings

RUN = (
    "spqr doctor",
    "spqr estimate -n 2 --spqr-languages en,hi --spqr-seeds 0,1",
    "spqr score --protocol v2-published --safety .938 --prompt-adherence .973 --quality .934 "
    "--robustness .980",
)
NOT_RUN = {
    r"spqr run( -n \S+)?( --spqr-min-score 0.8 --junitxml=\S+)?": "test_workflows runs the suites",
    r"spqr run .*--spqr-(base|candidate|alignment-prompts|prompts) .*": "needs a model or prompts",
    r"spqr run --alluredir .*": "tests/reports writes Allure's results",
    r"spqr estimate --probe": "draws and trains for a minute; test_estimating probes",
    r"spqr align uce .*": "a run's worth of images of the base; test_aligning aligns",
    r"spqr leaderboard --candidates .*": "trains; tests/leaderboard runs small ones",
    r"spqr leaderboard --scorecards .*": "needs scorecards; tests/leaderboard makes some",
    r"spqr (convert|pairs|prompts|translate|judge) .*": "needs the user's files or a Hub model",
    r"spqr store .*": "needs a filled store; test_cli looks after one",
    r"make .*": "installs from the network; .ci/run calls it",
    r"pre-commit .*": "an own environment's program; test_repository has the hooks",
    r"python benchmarks/.*": "measures for minutes to hours",
    r"pip install .*": "installs from the network",
    r"pytest tests/test_scorecard.py.*": "tests/reports runs that file's test",
    r"cat pyproject.toml": "shows settings, which are validated",
}
UNLISTED = {"--junitxml"}
"""Spellings that pytest takes and its help does not name."""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]


def of(program: str) -> list[Any]:
    return [pytest.param(c, id=f"{c.page}: {c.line}") for c in shown() if c.words[0] == program]


def validated(table: dict[str, Any], folder: Path) -> None:
    """Settings as dotted names; complete ones (with a judge) must also be enough to measure."""
    load_settings(folder, table, measures="judge" in table)


def given(options: argparse.Namespace) -> dict[str, Any]:
    named = {option.field: getattr(options, option.dest, None) for option in OPTIONS}
    return {field: value for field, value in named.items() if value is not None}


@pytest.fixture(scope="module")
def pytest_flags(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """Every option of pytest and the installed plugins."""
    help_text = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"],
        cwd=tmp_path_factory.mktemp("help"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", help_text)) | UNLISTED


def check_run(words: tuple[str, ...], folder: Path, flags: frozenset[str]) -> None:
    options, rest = estimating_parser().parse_known_args(words)
    unknown = [w for w in rest if w.startswith("-") and w.split("=")[0] not in flags]
    assert not unknown
    validated(given(options), folder)


def check_spqr(words: tuple[str, ...], folder: Path, flags: frozenset[str]) -> None:
    parsed, rest = command_parser(words).parse_known_args(words)
    assert parsed.reads_rest or not rest
    if words[0] == "run":
        check_run(words[1:], folder, flags)
    elif words[0] == "estimate":
        validated(given(estimating_parser().parse_args(words[1:])), folder)
    elif words[0] == "leaderboard":
        validated(given(leaderboard_parser().parse_args(words[1:])), folder)


@pytest.mark.parametrize("command", of("spqr"))
def test_commands_of_spqr_have_known_options_and_settings(
    command: Command, tmp_path: Path, pytest_flags: frozenset[str]
) -> None:
    check_spqr(command.words[1:], tmp_path, pytest_flags)


@pytest.mark.parametrize("command", of("make"))
def test_targets_of_make_exist_and_what_they_start_is_known(
    command: Command, tmp_path: Path, pytest_flags: frozenset[str]
) -> None:
    dry = subprocess.run(
        ["make", "--dry-run", *command.words[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert dry.returncode == 0, dry.stderr
    for line in re.findall(r"^\S*bin/(spqr .*)$", dry.stdout, re.M):
        ((_, *words),) = started(line)
        check_spqr(tuple(words), tmp_path, pytest_flags)


@pytest.mark.parametrize("command", of("pytest"))
def test_commands_of_pytest_have_known_options(
    command: Command, pytest_flags: frozenset[str]
) -> None:
    assert {w for w in command.words if w.startswith("-")} <= pytest_flags


@pytest.mark.parametrize("command", of("python"))
def test_benchmarks_exist(command: Command) -> None:
    assert (ROOT / command.words[1]).is_file()


@pytest.mark.parametrize("command", of("cat"))
def test_settings_that_a_page_shows_are_valid(command: Command, tmp_path: Path) -> None:
    assert command.words == ("cat", "pyproject.toml")
    (tmp_path / "pyproject.toml").write_text(command.output, encoding="utf-8")
    assert tomllib.loads(command.output)["tool"]["spqr"]
    load_settings(tmp_path, {}, measures=False)


TABLES = [
    pytest.param(table, id=f"{page.name}-{n}")
    for page in PAGES
    for n, table in enumerate(blocks(page, "toml"))
    if "[tool.spqr" in table
]


@pytest.mark.parametrize("table", TABLES)
def test_tables_of_settings_are_valid(table: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    load_settings(tmp_path, {}, measures=False)


def test_extras_that_pages_install_exist() -> None:
    named = {
        extra
        for page in PAGES
        for extras in re.findall(r"spqr-checks\[([\w,-]+)\]", page.read_text("utf-8"))
        for extra in extras.split(",")
    }
    assert named
    assert named <= EXTRAS.keys()


def test_commands_named_in_a_sentence_exist() -> None:
    parser = command_parser(())
    (actions,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    named = {
        name for page in PAGES for name in re.findall(r"`spqr ([a-z]+)", page.read_text("utf-8"))
    }
    assert len(named) > 5
    assert named <= set(actions.choices)


@pytest.mark.parametrize("line", RUN)
def test_what_takes_seconds_runs(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = {c.words: c for c in shown() if c.line == line}.values()
    monkeypatch.chdir(tmp_path)
    assert main(command.words[1:]) == 0
    printed = capsys.readouterr().out
    assert printed
    if command.words[1] == "score":
        assert printed.strip() == command.output.strip()


def test_every_command_is_run_or_says_why_not() -> None:
    lines = {c.line for c in shown()} - set(RUN)
    assert {c.line for c in shown()} >= set(RUN)
    unused = [p for p in NOT_RUN if not any(re.fullmatch(p, line) for line in lines)]
    unsaid = [line for line in lines if not any(re.fullmatch(p, line) for p in NOT_RUN)]
    assert (unused, unsaid) == ([], [])


def test_commands_of_spqr_stand_in_console_blocks_only() -> None:
    """Elsewhere they would not be found by these tests."""
    for page in PAGES:
        others = "".join(blocks(page, "", "bash", "sh", "shell", "text"))
        assert not re.search(r"^ *(\$ )?(spqr|make) [a-z]", others, re.M), page


def test_loops_continued_lines_and_comments_are_read_as_bash_reads_them() -> None:
    block = (
        '$ for c in a method:b; do\n    spqr run \\\n      -k "x or y" ${c#method:}\n  done\nout\n'
    )
    ((text, output),) = typed(block + "")
    assert output == "out\n"
    assert started(text) == [("spqr", "run", "-k", "x or y", c) for c in "ab"]
    assert started("make demo … # not this") == [("make", "demo")]
    with pytest.raises(AssertionError, match="not found"):
        started("rm -r nothing")


@pytest.mark.parametrize("wrong", ["run --spqr-colour red", "run --spqr-mode often", "run --frob"])
def test_wrong_commands_are_noticed(
    wrong: str, tmp_path: Path, pytest_flags: frozenset[str]
) -> None:
    with pytest.raises((UserError, AssertionError)):
        check_spqr(tuple(wrong.split()), tmp_path, pytest_flags)
