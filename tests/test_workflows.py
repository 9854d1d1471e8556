"""The CI files that docs/ci.md offers: they say what this version can do, and it runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from nested import environment
from warm import arguments, fill

from spqr_checks.cli.main import command_parser
from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"
FILES = (DOCS / "workflows" / "github.yml", DOCS / "workflows" / "gitlab.yml")
FLAG = re.compile(r"--spqr-[a-z-]+")


def read(path: Path) -> dict[str, Any]:
    # the base loader leaves words as they are; YAML 1.1 takes GitHub's `on` for a truth
    return dict(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader))


GITHUB, GITLAB = map(read, FILES)
STEPS: list[dict[str, Any]] = GITHUB["jobs"]["gate"]["steps"]
JOB: dict[str, Any] = GITLAB["spqr"]
SCRIPTS = {
    "github": [step["run"] for step in STEPS if "run" in step],
    "gitlab": JOB["script"],
}


def step(action: str) -> tuple[int, dict[str, Any]]:
    """Number and content of the only step that uses an action."""
    ((number, found),) = [
        (i, s) for i, s in enumerate(STEPS) if s.get("uses", "").startswith(f"{action}@")
    ]
    return number, found


def measuring(host: str) -> str:
    (command,) = [line for line in SCRIPTS[host] if line.startswith("spqr ")]
    return str(command)


@pytest.mark.parametrize("path", [*FILES, DOCS / "ci.md", DOCS / "snapshots.md"])
def test_every_option_named_there_exists(path: Path) -> None:
    named = set(FLAG.findall(path.read_text(encoding="utf-8")))
    assert named <= {option.flag for option in OPTIONS}
    assert named or path.name == "snapshots.md"


@pytest.mark.parametrize("host", SCRIPTS)
def test_commands_are_those_of_the_command_line(host: str) -> None:
    assert SCRIPTS[host][0] == "pip install spqr-checks"
    given = shlex.split(measuring(host))[1:]
    parsed, rest = command_parser(given).parse_known_args(given)
    assert parsed.reads_rest
    assert "--junitxml=spqr-report/junit.xml" in rest


def test_both_hosts_and_the_text_run_the_same_command() -> None:
    github, gitlab = (re.sub(r"-n \w+", "-n N", measuring(host)) for host in SCRIPTS)
    assert github == gitlab
    assert measuring("github") in (DOCS / "ci.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_command_opens_the_gate_and_leaves_what_is_kept(tmp_path: Path) -> None:
    fill(tmp_path)
    settings = [a for a in arguments(tmp_path) if a.startswith("--spqr-")]
    command = [sys.executable, "-m", "spqr_checks.cli", *shlex.split(measuring("github"))[1:]]
    summary = tmp_path / "step-summary.md"
    result = subprocess.run(
        [*command, *settings],
        cwd=tmp_path,
        env=environment() | {"GITHUB_STEP_SUMMARY": str(summary)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    kept = tmp_path / step("actions/upload-artifact")[1]["with"]["path"]
    assert {"junit.xml", "scorecard.json", "summary.md"} <= {p.name for p in kept.iterdir()}
    assert (tmp_path / step("actions/cache/save")[1]["with"]["path"]).is_dir()
    assert "gate PASSED" in summary.read_text(encoding="utf-8")


def test_store_and_report_lie_where_runs_put_them() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    store, report = defaults["store"], defaults["report"]
    for action in ("actions/cache/restore", "actions/cache/save"):
        assert step(action)[1]["with"]["path"] == store
    assert step("actions/upload-artifact")[1]["with"]["path"] == f"{report}/"
    assert JOB["cache"]["paths"] == [f"{store}/"]
    assert JOB["artifacts"]["paths"] == [f"{report}/"]
    assert JOB["artifacts"]["reports"]["junit"] == f"{report}/junit.xml"


def test_store_and_report_are_kept_also_when_the_gate_is_closed() -> None:
    (measured,) = [i for i, s in enumerate(STEPS) if s.get("run", "").startswith("spqr ")]
    assert step("actions/cache/restore")[0] < measured
    for action in ("actions/cache/save", "actions/upload-artifact"):
        number, found = step(action)
        assert number > measured
        assert found["if"] == "always()"
    assert JOB["cache"]["when"] == JOB["artifacts"]["when"] == "always"
    assert not any("continue-on-error" in s for s in STEPS)
    assert "allow_failure" not in JOB


def test_the_cache_is_named_after_base_and_judge_and_extended_by_every_run() -> None:
    restored, saved = (step(f"actions/cache/{what}")[1]["with"] for what in ("restore", "save"))
    key, begins = restored["key"], restored["restore-keys"].split("\n")
    assert saved["key"] == key
    assert key.endswith("${{ github.run_id }}-${{ github.run_attempt }}")
    assert begins.pop() == ""
    assert all(key.startswith(begin) for begin in begins)
    assert [("CACHE_BASE" in b, "CACHE_JUDGE" in b) for b in begins] == [
        (True, True),
        (True, False),
    ]
    assert "policy" not in JOB["cache"]  # pulls and pushes
    for named, where in ((GITHUB["env"], key), (JOB["variables"], JOB["cache"]["key"])):
        for name in ("CACHE_BASE", "CACHE_JUDGE"):
            assert name in where
            assert re.fullmatch(r"[a-z0-9-]+", named[name])


def test_only_an_incomplete_run_is_tried_again() -> None:
    from spqr_checks.pytest_plugin.collector import INCOMPLETE

    assert JOB["retry"] == {"max": "1", "exit_codes": [str(INCOMPLETE)]}


def test_the_text_explains_every_exit_code_and_names_both_files() -> None:
    text = (DOCS / "ci.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d) \|", text, re.M) == ["0", "1", "2", "3", "4", "5"]
    for path in FILES:
        assert f"({path.relative_to(DOCS)})" in text
