"""The shell steps of the CI files that docs/ci.md offers, run as their hosts run them."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from warm import BASE_SETTINGS, fill
from workflow_steps import ROOT, Host, Ran, read, shell_steps

WORKFLOWS = ROOT / "docs" / "workflows"
GITHUB, COMMENT, GITLAB = (
    read(WORKFLOWS / f"{name}.yml") for name in ("github", "github-comment", "gitlab")
)
ACTION = read(ROOT / "action.yml")
GATE, SHARE = GITLAB["gate"], GITLAB["share"]
MARK = "<!-- spqr-checks -->"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "project").mkdir()
    return Host(tmp_path / "project", tmp_path / "bin")


def warm_project(host: Host, **settings: Any) -> None:
    """A project whose runs find everything in its store."""
    fill(host.folder, **settings)
    table = BASE_SETTINGS | settings
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
    (host.folder / "pyproject.toml").write_text(f"[tool.spqr]\n{lines}", encoding="utf-8")


def named(document: dict[str, Any], job: str, text: str) -> dict[str, Any]:
    """The one shell step of a job whose script has the text."""
    (found,) = [s for name, s in shell_steps(document) if name == job and text in s["run"]]
    return found


PLANS = [
    ("pull_request", "true", "true", "short", "[1]"),
    ("pull_request", "false", "false", "short", "[1]"),
    ("pull_request", "true", "false", "demo", "[1]"),
    ("schedule", "true", "true", "full", "[1,2,3,4]"),
    ("workflow_dispatch", "true", "true", "full", "[1,2,3,4]"),
]


@pytest.mark.parametrize(("event", "needs", "has", "suite", "shards"), PLANS)
def test_what_a_run_measures_follows_from_event_and_secrets(
    host: Host, event: str, needs: str, has: str, suite: str, shards: str
) -> None:
    host.context |= {"github.event_name": event, "secrets.HF_TOKEN != ''": has}
    document = GITHUB | {"env": GITHUB["env"] | {"NEEDS_TOKEN": needs}}
    ran = host.step(document, "plan", named(GITHUB, "plan", "suite="))
    assert ran.code == 0, ran.said
    short = GITHUB["env"]["SHORT"] if event == "pull_request" else ""
    assert ran.outputs == {"suite": suite, "options": short, "shards": shards}
    assert json.loads(ran.outputs["shards"])


def test_what_was_not_measured_does_not_pass(host: Host) -> None:
    host.context["vars.SPQR_DEVICE || 'cpu'"] = "cpu"
    ran = host.step(GITHUB, "gate", named(GITHUB, "gate", "not measured"))
    assert ran.code == 3
    assert ran.said.startswith("::error::not measured: no HF_TOKEN")


@pytest.mark.slow
def test_github_s_jobs_run_from_shares_to_allure(host: Host) -> None:
    warm_project(host)
    options = GITHUB["env"]["SHORT"]
    host.context |= {
        "needs.plan.outputs.options": options,
        "secrets.HF_TOKEN": "",
        "matrix.shard": "1",
        "strategy.job-total": "1",
        "vars.SPQR_DEVICE || 'cpu'": "cpu",
    }
    for _, one in shell_steps({"jobs": {"shard": GITHUB["jobs"]["shard"]}}):
        ran = host.step(GITHUB, "shard", one)
        assert ran.code == 0, ran.said
    (host.folder / "stores").mkdir()
    (host.folder / ".spqr").rename(host.folder / "stores" / "store-1-1")
    passed = [s for _, s in shell_steps({"jobs": {"gate": GITHUB["jobs"]["gate"]}})][1:]
    assert len(passed) == 5  # all but the refusal
    for one in passed:
        ran = host.step(GITHUB, "gate", one)
        assert ran.code == 0, ran.said
        if "--spqr-min-score" in one["run"]:
            assert "gate PASSED" in ran.summary
    kept = {path.name for path in (host.folder / "spqr-report").iterdir()}
    assert {"junit.xml", "scorecard.json", "summary.md"} <= kept
    assert (host.folder / "allure-report" / "index.html").is_file()
    assert host.log.read_text().split("\n")[:2] == ["pip install spqr-checks"] * 2
    assert "0 entries removed" in host.step(GITHUB, "gate", named(GITHUB, "gate", "gc")).said


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 1, 2, 3, 4])
def test_a_share_fails_where_the_gate_could_not_say_why(host: Host, code: int) -> None:
    host.program("spqr", f"#!/bin/sh\nexit {code}\n")
    host.context |= dict.fromkeys(
        ["needs.plan.outputs.options", "secrets.HF_TOKEN", "matrix.shard", "strategy.job-total"],
        "1",
    ) | {"vars.SPQR_DEVICE || 'cpu'": "cpu"}
    ran = host.step(GITHUB, "shard", named(GITHUB, "shard", "--spqr-shard"))
    assert ran.code == (code if code in (2, 4) else 0)


def test_the_demo_is_run_where_no_settings_of_the_project_are_found(host: Host) -> None:
    host.program("spqr", '#!/bin/sh\npwd >> "$LOG"\n')
    (host.folder / "pyproject.toml").write_text("[tool.spqr]\n")
    ran = host.step(GITHUB, "demo", named(GITHUB, "demo", "spqr run"))
    assert ran.code == 0
    assert "your model was not measured" in ran.summary
    assert host.log.read_text().strip() == str(host.bin)
    assert host.step(GITHUB, "demo", named(GITHUB, "demo", "pip")).code == 0


@pytest.mark.slow
def test_the_action_says_number_and_exit_code(host: Host) -> None:
    warm_project(host)
    inputs = {f"inputs.{n}": one.get("default", "") for n, one in ACTION["inputs"].items()}
    host.variables["GITHUB_ACTION_PATH"] = str(ROOT)
    measure = named(ACTION, "action", "spqr run")
    assert host.step(ACTION, "action", named(ACTION, "action", "pip")).code == 0
    assert host.log.read_text() == f"pip install {ROOT}\n"
    for least, code in (("0.5", "0"), ("1", "1")):
        host.context = inputs | {"inputs.min-score": least, "inputs.options": "-q -q"}
        ran = host.step(ACTION, "action", measure)
        assert ran.outputs["exit-code"] == code == str(ran.code), ran.said
        assert 0.5 < float(ran.outputs["spqr"]) < 1
    host.context = inputs | {"inputs.options": "--spqr-mode never"}
    ran = host.step(ACTION, "action", measure)
    assert (ran.code, ran.outputs) == (4, {"exit-code": "4"})
    steps = {s.get("id") for s in ACTION["runs"]["steps"]}
    for output in ACTION["outputs"].values():
        found = re.search(r"steps\.(\w+)\.", output["value"])
        assert found is None or found[1] in steps


# ---- comments --------------------------------------------------------------------------------

GH = """#!/usr/bin/env python
import json, os, sys
words = sys.argv[1:]
state = json.load(open(os.environ["STATE"]))
fields = dict(w.split("=", 1) for w in words if "=" in w)
method = words[words.index("--method") + 1] if "--method" in words else "GET"
(path,) = [w for w in words if w.startswith("repos/")]
if path.endswith("/pulls"):
    assert fields["state"] == "open"
    answer = [p for p in state["pulls"] if p["label"] == fields["head"]]
elif method == "GET":
    answer = state["comments"]
else:
    body = open(fields["body"].removeprefix("@")).read()
    if method == "POST":
        number = int(path.split("/")[-2])
        made = {"id": len(state["comments"]) + 1, "on": number, "body": body}
        state["comments"].append(made | {"user": {"login": "github-actions[bot]"}})
    else:
        (old,) = [c for c in state["comments"] if c["id"] == int(path.split("/")[-1])]
        old["body"] = body
    json.dump(state, open(os.environ["STATE"], "w"))
    answer = {}
print(json.dumps(answer))
"""


class Forge:
    """What a stand-in for GitHub's command knows and keeps."""

    def __init__(self, host: Host, **state: Any) -> None:
        self.host, self.path = host, host.bin / "state.json"
        self.path.write_text(json.dumps({"pulls": [], "comments": []} | state))
        host.program("gh", GH)
        host.variables["STATE"] = str(self.path)
        workflow = "github.event.workflow_run"
        host.context |= {
            "github.token": "t",
            "github.repository": "me/model",
            f"{workflow}.head_repository.owner.login": "guest",
            f"{workflow}.head_branch": "feature/x",
            f"{workflow}.head_sha": "abc",
            f"{workflow}.conclusion": "failure",
            f"{workflow}.html_url": "https://example.org/run",
        }

    def comment(self) -> Ran:
        return self.host.step(COMMENT, "comment", named(COMMENT, "comment", "gh api"))

    @property
    def comments(self) -> list[dict[str, Any]]:
        return list(json.loads(self.path.read_text())["comments"])


PULL = {"number": 7, "label": "guest:feature/x", "head": {"sha": "abc"}}
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="there is no jq")


@needs_jq
def test_one_comment_is_written_anew_by_every_run(host: Host) -> None:
    said_by_others = {"id": 1, "body": f"{MARK}\nSPQR: success", "user": {"login": "guest"}}
    forge = Forge(host, pulls=[PULL], comments=[said_by_others])
    report = host.folder / "spqr-report"
    report.mkdir()
    for text in ("first, ask @everyone", "second" + "x" * 100_000):
        (report / "summary.md").write_text(text, encoding="utf-8")
        ran = forge.comment()
        assert ran.code == 0, ran.said
    others, own = forge.comments
    assert others == said_by_others
    assert own["on"] == 7
    assert own["body"].startswith(f"{MARK}\n**SPQR: failure** for abc ([run](https://example.org/")
    assert "second" in own["body"]
    assert "first" not in own["body"]
    assert len(own["body"]) < 65_536  # GitHub's limit
    (report / "summary.md").write_bytes(b"ask @everyone \xff")
    assert forge.comment().code == 0
    assert "ask &#64;everyone" in forge.comments[1]["body"]


@needs_jq
def test_a_comment_goes_to_the_run_s_own_pull_request_and_shows_the_report_alone(
    host: Host,
) -> None:
    other = PULL | {"number": 8, "head": {"sha": "of another commit"}}
    forge = Forge(host, pulls=[other])
    assert "no open pull request" in forge.comment().said
    assert forge.comments == []
    forge = Forge(host, pulls=[other, PULL])
    (host.folder / "secret").write_text("not for comments")
    (host.folder / "spqr-report").mkdir()
    (host.folder / "spqr-report" / "summary.md").symlink_to(host.folder / "secret")
    assert forge.comment().code == 0
    (own,) = forge.comments
    assert own["on"] == 7
    assert "There is no summary" in own["body"]


# ---- GitLab ----------------------------------------------------------------------------------


def script(job: dict[str, Any], key: str = "script") -> str:
    return "\n".join(job[key])


@pytest.mark.slow
def test_gitlab_s_jobs_run_from_shares_to_pages(host: Host) -> None:
    warm_project(host)
    before = script(GITLAB[".measuring"], "before_script")
    known = {"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "1", "CI_PIPELINE_SOURCE": "push"}
    host.variables |= GITLAB["variables"] | known
    for job in (SHARE, GATE, GITLAB["allure"], GITLAB["pages"]):
        first = before if job.get("extends") == ".measuring" else ":"
        ran = host.shell(f"{first}\n{script(job)}".replace("-n 8", "-n 2"))
        assert ran.code == 0, ran.said
        for path in job["artifacts"]["paths"]:
            assert (host.folder / path).is_dir(), path
        if job is SHARE:
            shutil.rmtree(host.folder / ".spqr")
    assert "0 entries removed" in host.shell(script(GATE, "after_script")).said
    assert (host.folder / "public" / "index.html").is_file()


def test_gitlab_refuses_to_pass_what_was_not_measured(host: Host) -> None:
    before = script(GITLAB[".measuring"], "before_script")
    known = GITLAB["variables"] | {"CI_PIPELINE_SOURCE": "merge_request_event"}
    host.variables |= known | {"NEEDS_TOKEN": "true"}
    ran = host.shell(f"{before}\necho $options")
    assert (ran.code, "no HF_TOKEN" in ran.said) == (4, True)
    ran = host.shell(f"{before}\necho $options", HF_TOKEN="t")
    assert (ran.code, ran.said.strip()) == (0, GITLAB["variables"]["SHORT"])
    ran = host.shell(f"{before}\necho $options", CI_PIPELINE_SOURCE="schedule", NEEDS_TOKEN="false")
    assert (ran.code, ran.said.strip()) == (0, "")


class _Notes(BaseHTTPRequestHandler):
    """GitLab's notes of one merge request, two on a page."""

    notes: list[dict[str, Any]]

    def _answer(self, value: Any, **headers: str) -> None:
        assert self.headers["PRIVATE-TOKEN"] == "t"
        self.send_response(200)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def do_GET(self) -> None:
        page = int(self.path.rpartition("=")[2])
        more = str(page + 1) if 2 * page < len(self.notes) else ""
        self._answer(self.notes[2 * page - 2 : 2 * page], x_next_page=more)

    def do_POST(self) -> None:
        self.notes.append({"id": len(self.notes), "body": self._body()})
        self._answer({})

    def do_PUT(self) -> None:
        self.notes[int(self.path.rpartition("/")[2])]["body"] = self._body()
        self._answer({})

    def _body(self) -> str:
        assert "/projects/3/merge_requests/5/notes" in self.path
        return str(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"])

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def notes() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    found = [{"id": n, "body": "looks good"} for n in range(3)]
    handler = type("Notes", (_Notes,), {"notes": found})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api/v4", found
        server.shutdown()
        thread.join()


def test_gitlab_s_comment_is_written_anew_too(
    host: Host, notes: tuple[str, list[dict[str, Any]]]
) -> None:
    address, found = notes
    host.variables |= {
        "CI_API_V4_URL": address,
        "CI_PROJECT_ID": "3",
        "CI_MERGE_REQUEST_IID": "5",
        "CI_COMMIT_SHA": "abc",
        "CI_PIPELINE_URL": "https://example.org/pipeline",
        "SPQR_TOKEN": "t",
    }
    for text in (None, "ask @everyone"):
        if text is not None:
            (host.folder / "spqr-report").mkdir()
            (host.folder / "spqr-report" / "summary.md").write_text(text)
        ran = host.shell(script(GITLAB["comment"]))
        assert ran.code == 0, ran.said
    assert [note["body"] for note in found[:3]] == ["looks good"] * 3
    (own,) = found[3:]
    assert own["body"].startswith(f"{MARK}\n**SPQR** for abc")
    assert own["body"].endswith("ask &#64;everyone")


def test_every_shell_step_is_run_by_a_test() -> None:
    """Those above; one that is added must be added there too."""
    assert [name for name, _ in shell_steps(GITHUB)] == (
        ["plan"] + ["demo"] * 2 + ["shard"] * 2 + ["gate"] * 6
    )
    assert len([*shell_steps(ACTION)]) == 2
    assert len([*shell_steps(COMMENT)]) == 1
    jobs = {name for name, job in GITLAB.items() if isinstance(job, dict) and "script" in job}
    assert jobs == {"share", "gate", "allure", "pages", "comment"}
