"""Every command on README and the docs' pages is one that this version understands.

All are parsed with the parsers that they would meet, settings included. What needs no network and
does not train for minutes is run, on made-up artefacts (see warm.py) and small files (see
shown_files.py); why the rest is not, `NOT_RUN` says, with the test that runs the same.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shown_commands import PAGES, ROOT, Command, blocks, shown, started, typed
from shown_files import write_files, write_hub
from shown_runs import Reader

from spqr_checks.cli.estimate import _parser as estimating_parser
from spqr_checks.cli.leaderboard import _parser as leaderboard_parser
from spqr_checks.cli.main import command_parser
from spqr_checks.errors import UserError
from spqr_checks.pytest_plugin.options import given
from spqr_checks.settings import load_settings

INCOMPLETE, CLOSED, FAULTS_FOUND = 3, 1, 1
EXIT = {
    r"spqr run .*-k .*": INCOMPLETE,
    r"make demo ARGS=--spqr-candidate base": CLOSED,
    r"spqr pairs check .*": FAULTS_FOUND,
}
"""Commands that end with another code than 0, as their pages say."""
NOT_RUN = {
    r"spqr run -n 8 --spqr-base .*": (
        "draws and trains",
        "tests/test_own_model_command.py::test_it_ends_with_a_scorecard_and_a_verdict",
    ),
    r"spqr run .* --spqr-adapter-alpha 16": (
        "needs a LoRA file that does not say its alpha",
        "tests/runtime/test_replaced_candidates.py::"
        "test_the_alpha_of_a_lora_file_is_asked_for_before_the_run_and_is_part_of_the_recipe",
    ),
    r"spqr run --spqr-adaptations .*": (
        "draws with adapters that are not there",
        "tests/adaptations/test_whole_run.py::"
        "test_community_adapters_go_through_the_whole_suite_alone_and_two_at_a_time",
    ),
    r"spqr estimate --probe": (
        "draws and trains for a minute",
        "tests/cli/test_estimating.py::test_the_probe_is_asked_for_what_nothing_is_known_of",
    ),
    r"spqr align uce .*": (
        "draws a run's worth of images of the base",
        "tests/cli/test_aligning.py::test_the_folder_holds_the_weights_and_how_they_were_made",
    ),
    r"spqr convert v1.ckpt .*": (
        "needs a checkpoint of CompVis' code",
        "tests/models/test_conversion.py::test_a_whole_checkpoint_becomes_the_pipeline_that_it_was",
    ),
    r"spqr pairs build .*": (
        "needs a chat model",
        "tests/tools/rewriting/test_command.py::test_a_chat_model_is_asked_and_its_noise_is_reported",
    ),
    r"spqr run .*--spqr-attacks .*": (
        "searches for minutes",
        "tests/runtime/test_attacked_prompts.py::"
        "test_an_attack_leaves_a_prompt_and_what_it_took_alike_each_time",
    ),
    r"spqr run --spqr-matrix paper": (
        "trains in four scenarios, whose settings are its own",
        "tests/runtime/test_paper_matrix.py::test_what_every_cell_reads_can_be_made_and_is_priced",
    ),
    r"spqr translate .*": (
        "needs a translation model",
        "tests/tools/translation/test_translate_command.py::test_there_and_back_again",
    ),
    r"spqr run --spqr-engine ray .*": (
        "needs a cluster",
        "tests/runtime/test_ray_engine.py::"
        "test_a_run_on_a_cluster_has_the_bytes_of_one_that_was_made_here",
    ),
    r"spqr push .* owner/model .*": (
        "needs a Hub",
        "tests/test_hub.py::"
        "test_reports_and_card_come_into_a_repository_in_one_commit_once_it_is_asked_for",
    ),
    r"spqr store (push|pull) .*s3://.*": (
        "needs a bucket",
        "tests/store/test_remote.py::test_a_bucket_of_an_s3_server_holds_a_store",
    ),
    r"make (quick|test)": (
        "is what runs this test",
        "tests/test_repository.py::test_quick_runs_lint_and_every_test_but_those_that_take_long",
    ),
    r"make lint": (
        "takes minutes and `make test` calls it",
        "tests/test_repository.py::test_hooks_are_the_linters_of_make_lint_with_their_settings",
    ),
    r"make docs": (
        "installs from the network first",
        "tests/test_repository.py::"
        "test_the_site_is_built_without_complaint_and_loads_nothing_from_elsewhere",
    ),
    r"make browser": (
        "installs from the network first",
        "tests/browser/test_pages_in_a_browser.py::test_axe_finds_nothing",
    ),
    r"spqr view": (
        "serves until it is interrupted",
        "tests/reports/test_serving.py::test_pages_and_what_lies_beside_them_are_served_and_listed",
    ),
    r"pre-commit .*": (
        "needs an environment of its own",
        "tests/test_repository.py::test_hooks_are_the_linters_of_make_lint_with_their_settings",
    ),
    r"python benchmarks/(attacks|language_models|clean|scaling|cosines|worse)\.py .*": (
        "trains for minutes to hours",
        "tests/test_shown_commands.py::test_benchmarks_find_what_they_import",
    ),
    r"spqr leaderboard --candidates base,uce,rece,.*": (
        "needs a warm store for each of its candidates; the page has another that is run",
        "tests/leaderboard/test_leaderboard_command.py::"
        "test_every_candidate_is_run_in_turn_with_the_settings_given",
    ),
    r"python benchmarks/curves\.py .*": (
        "reads what the command before it counts",
        "tests/test_scaling_benchmark.py::test_counts_become_points_with_intervals_and_a_lead",
    ),
    r"python benchmarks/ranking\.py .*": (
        "reads what that command measures",
        "tests/test_ranking_benchmark.py::test_ranks_of_the_paper_stand_beside_ours",
    ),
    r"python benchmarks/speed\.py .*": (
        "takes minutes",
        "tests/test_speed_benchmark.py::test_a_part_s_rows_are_printed_and_added_to_the_file",
    ),
    r"pip install .*": (
        "installs from the network",
        "tests/test_wheel.py::test_the_installed_command_runs_the_suites",
    ),
}
"""Commands that are not run: why, and the test that runs the same."""
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
    validated(given(vars(options).get), folder)


def check_spqr(words: tuple[str, ...], folder: Path, flags: frozenset[str]) -> None:
    parsed, rest = command_parser(words).parse_known_args(words)
    assert parsed.reads_rest or not rest
    if words[0] == "run":
        check_run(words[1:], folder, flags)
    elif words[0] == "estimate":
        options = estimating_parser().parse_args(words[1:])
        validated(given(vars(options).get), folder)
    elif words[0] == "leaderboard":
        options = leaderboard_parser().parse_args(words[1:])
        validated(given(vars(options).get), folder)


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
def test_benchmarks_find_what_they_import(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ROOT / command.words[1]
    monkeypatch.syspath_prepend(str(script.parent))  # as python does for a script
    assert "main" in runpy.run_path(str(script))


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


def runnable() -> dict[str, list[Command]]:
    """Each page's commands, but what `NOT_RUN` names."""
    pages: dict[str, list[Command]] = {}
    for command in shown():
        unlike_a_setting = command.words[0] != "cat"
        if unlike_a_setting and not any(re.fullmatch(p, command.line) for p in NOT_RUN):
            pages.setdefault(command.page, []).append(command)
    return pages


@pytest.fixture(scope="session")
def users_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all files that commands name, and a cache of the Hub; read only."""
    root = tmp_path_factory.mktemp("users")
    write_files(root / "project")
    write_hub(root / "hub", root / "project")
    return root


@pytest.fixture(scope="session")
def reader(users_files: Path) -> Iterator[Reader]:
    reader = Reader({"HF_HUB_CACHE": str(users_files / "hub"), "HF_HUB_OFFLINE": "1"})
    yield reader
    reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("page", runnable())
def test_a_page_s_commands_run_in_its_order(
    page: str, users_files: Path, reader: Reader, tmp_path: Path
) -> None:
    """All that `NOT_RUN` does not name, in one folder; what they would make is made up there."""
    project = shutil.copytree(users_files / "project", tmp_path / "project", symlinks=True)
    for command, code, printed in reader.carried_out(runnable()[page], project):
        expected = [c for pattern, c in EXIT.items() if re.fullmatch(pattern, command.line)]
        assert code == (expected or [0])[0], f"{command.line}\n{printed}"
        assert printed, command.line
        if command.words[1] == "score":
            assert printed.strip() == command.output.strip()


def test_every_command_is_run_or_names_the_test_that_runs_the_same() -> None:
    lines = {c.line for c in shown()}
    assert [p for p in NOT_RUN if not any(re.fullmatch(p, line) for line in lines)] == []
    assert [p for p in EXIT if not any(re.fullmatch(p, line) for line in lines)] == []
    for _, test in NOT_RUN.values():
        file, _, name = test.partition("::")
        assert not test or f"def {name}(" in (ROOT / file).read_text("utf-8"), test


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
