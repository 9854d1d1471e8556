"""`spqr leaderboard` as users start it: real processes on made-up artefacts, see warm.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
from nested import PLUGINS
from warm import BASE_SETTINGS, World, fill, well_behaved

from spqr_checks.matrix import State
from spqr_checks.pytest_plugin.options import OPTIONS

ALL_RANKED, INTERRUPTED, INCOMPLETE, USAGE = 0, 2, 3, 4
FLAGS = {option.field: option.flag for option in OPTIONS}


IMAGES = 48  # enough for a drift of nothing to be told from the limit


def write_project(folder: Path) -> list[str]:
    """pyproject.toml with what no option sets; returns the options."""
    given = BASE_SETTINGS | {"store": str(folder / ".spqr"), "images": IMAGES}
    lines = [f"{k} = {json.dumps(v)}\n" for k, v in given.items() if k not in FLAGS]
    (folder / "pyproject.toml").write_text("[tool.spqr]\n" + "".join(lines))
    return [f"{FLAGS[k]}={v}" for k, v in given.items() if k in FLAGS]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "spqr_checks.cli", "leaderboard", *arguments]


def variables(folder: Path, more: dict[str, str]) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "GITHUB", "SPQR"))}
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return clean | PLUGINS | {"PYTHONPATH": path} | more


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables(folder, environment),
    )


def finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Waits for it; one that hangs is stopped together with its child."""
    try:
        out, err = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate(timeout=100)
        raise
    return subprocess.CompletedProcess([], process.returncode, out, err)


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return forked.run(command(*arguments), folder, variables(folder, environment), timeout=300)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert path.exists()


def board(folder: Path) -> dict[str, Any]:
    text = (folder / "spqr-leaderboard" / "leaderboard.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def drifting(every: int) -> Callable[[State, str, int], bool]:
    """After fine-tuning, one image of so many is unsafe."""

    def unsafe(state: State, kind: str, index: int) -> bool:
        tuned = kind == "harmful" and state.tuning is not None and index % every == 0
        return tuned or well_behaved(state, kind, index)

    return unsafe


WORLDS = {
    "method:uce": World(),
    "method:esd": World(unsafe=drifting(2)),
}


def fill_all(folder: Path) -> None:
    for candidate, world in WORLDS.items():
        fill(folder, world, candidate=candidate, images=IMAGES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], str]:
    """Two candidates, run once for all tests that only look at what came out."""
    folder = tmp_path_factory.mktemp("board")
    fill_all(folder)
    options = write_project(folder)
    summary = str(folder / "job-summary.md")
    result = run(folder, "--candidates", "esd,method:uce", *options, GITHUB_STEP_SUMMARY=summary)
    assert result.returncode == ALL_RANKED, result.stdout + result.stderr
    return folder, options, result.stdout


@pytest.mark.slow
def test_candidates_are_run_on_one_store_and_ranked(
    finished: tuple[Path, list[str], str],
) -> None:
    folder, _, out = finished
    made = board(folder)
    assert [row["name"] for row in made["rows"]] == ["method:uce", "method:esd"]
    assert [row["ranks"] for row in made["rows"]] == [[1, 1], [2, 2]]
    cards = {
        slug: json.loads((folder / "spqr-leaderboard" / slug / "scorecard.json").read_text())
        for slug in ("method-uce", "method-esd")
    }
    assert made["rows"][0]["spqr"] == cards["method-uce"]["spqr"] > 0.9
    assert made["rows"][1]["axes"]["R"]["raw"] == cards["method-esd"]["axes"]["R"]["raw"] < 0.1
    assert "2 candidates ranked under anchored-2" in out
    assert "[1/2] method:esd" in out


@pytest.mark.slow
def test_the_page_shows_the_pictures_of_the_store(finished: tuple[Path, list[str], str]) -> None:
    folder = finished[0]
    page = (folder / "spqr-leaderboard" / "leaderboard.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") > 24
    assert "newly unsafe" in page


@pytest.mark.slow
def test_the_job_summary_gets_the_leaderboard_alone(
    finished: tuple[Path, list[str], str],
) -> None:
    text = (finished[0] / "job-summary.md").read_text(encoding="utf-8")
    assert text.count("<!-- spqr-checks") == 1
    assert "# SPQR leaderboard" in text


@pytest.mark.slow
def test_finished_scorecards_give_the_same_leaderboard(
    finished: tuple[Path, list[str], str],
) -> None:
    folder = finished[0]
    cards = [f"spqr-leaderboard/{slug}" for slug in ("method-uce", "method-esd")]
    store = f"--spqr-store={folder / '.spqr'}"
    result = run(folder, "--scorecards", *cards, store, "--out", "again")
    assert result.returncode == ALL_RANKED, result.stderr
    for name in ("leaderboard.json", "leaderboard.md", "leaderboard.html"):
        one, other = ((folder / out / name).read_bytes() for out in ("spqr-leaderboard", "again"))
        assert one == other, name


@pytest.mark.slow
def test_run_again_nothing_is_measured_and_everything_is_the_same(
    finished: tuple[Path, list[str], str],
) -> None:
    folder, options, _ = finished
    (folder / "no_more.py").write_text("raise SystemExit('a suite was started')\n")
    before = (folder / "spqr-leaderboard" / "leaderboard.json").read_bytes()
    arguments = ("--candidates", "esd,method:uce", *options, "--out", "second")
    result = run(folder, *arguments, PYTEST_ADDOPTS="-p no_more")
    assert result.returncode == ALL_RANKED, result.stdout + result.stderr
    assert "[2/2] method:uce: nothing has changed since it was measured" in result.stdout
    assert (folder / "second" / "leaderboard.json").read_bytes() == before
    for slug in ("method-uce", "method-esd"):
        for name in ("scorecard.json", "summary.md"):
            was, now = (folder / out / slug / name for out in ("spqr-leaderboard", "second"))
            assert now.read_bytes() == was.read_bytes()


@pytest.mark.slow
def test_a_candidate_whose_settings_changed_is_measured_again(
    finished: tuple[Path, list[str], str],
) -> None:
    folder, options, _ = finished
    result = run(folder, "--candidates", "uce", *options, "--spqr-min-score=0.5", "--out", "third")
    assert result.returncode == ALL_RANKED, result.stdout + result.stderr
    assert "nothing has changed" not in result.stdout


@pytest.mark.slow
def test_scorecards_made_under_other_settings_are_refused(
    finished: tuple[Path, list[str], str],
) -> None:
    folder = finished[0]
    path = folder / "spqr-leaderboard" / "method-esd" / "scorecard.json"
    document = json.loads(path.read_text())
    steps = document["settings"]["sampler"]["steps"]
    document["settings"]["sampler"]["steps"] = steps + 1
    (folder / "other.json").write_text(json.dumps(document))
    result = run(
        folder, "--scorecards", "spqr-leaderboard/method-uce", "other.json", "--out", "refused"
    )
    assert result.returncode == USAGE
    assert f"setting sampler.steps is {steps} in one and {steps + 1} in the other" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / "refused").exists()


@pytest.mark.slow
def test_a_candidate_without_a_number_is_listed_and_the_exit_code_says_so(tmp_path: Path) -> None:
    def silent(state: State, kind: str, index: int) -> Any:
        return None if state.origin == "aligned" else well_behaved(state, kind, index)

    fill(tmp_path, World(), candidate="method:uce", images=IMAGES)
    fill(tmp_path, World(unsafe=silent), candidate="method:esd", images=IMAGES)
    options = write_project(tmp_path)
    stale = tmp_path / "spqr-leaderboard" / "method-uce" / "scorecard.json"
    # the last candidate's process dies before it has a scorecard; its old one must not be taken
    (tmp_path / "killer.py").write_text(
        "import os, signal, sys\n"
        "if any('candidate=base' in a for a in sys.argv): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = run(tmp_path, "--candidates", "uce,esd,base", *options, PYTEST_ADDOPTS="-p killer")
    assert result.returncode == INCOMPLETE, result.stdout + result.stderr
    assert stale.exists()
    rows = {row["name"]: row for row in board(tmp_path)["rows"]}
    assert rows["method:uce"]["ranks"] == [1, 1]
    assert rows["method:esd"]["ranks"] is None
    assert rows["method:esd"]["reason"].startswith("incomplete: S-")
    assert rows["base"]["reason"] == "its run was killed by signal 9 without a scorecard"
    assert "no number for base" in result.stdout


@pytest.mark.slow
def test_an_interrupted_leaderboard_goes_on_with_the_same_command(tmp_path: Path) -> None:
    fill_all(tmp_path)
    options = write_project(tmp_path)
    (tmp_path / "slow_down.py").write_text(
        "import time, pytest\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_runtest_call(item):\n"
        "    open('started', 'w').close()\n"
        "    time.sleep(1)\n"
    )
    process = start(tmp_path, "--candidates", "uce,esd", *options, PYTEST_ADDOPTS="-p slow_down")
    wait_for(tmp_path / "started")
    process.send_signal(signal.SIGINT)
    stopped = finish(process)
    assert stopped.returncode == INTERRUPTED, stopped.stderr
    assert "the same command goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "spqr-leaderboard" / "leaderboard.json").exists()
    assert not (tmp_path / "spqr-leaderboard" / "method-esd").exists()
    result = run(tmp_path, "--candidates", "uce,esd", *options)
    assert result.returncode == ALL_RANKED, result.stdout + result.stderr
    assert len(board(tmp_path)["rows"]) == 2


@pytest.mark.slow
def test_a_killed_leaderboard_goes_on_where_it_was(tmp_path: Path) -> None:
    fill_all(tmp_path)
    options = write_project(tmp_path)
    (tmp_path / "hang.py").write_text(
        "import os, pathlib, sys, time, pytest\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_runtest_call(item):\n"
        "    if any('candidate=method:esd' in a for a in sys.argv):\n"
        "        pathlib.Path('draft').write_text(str(os.getpid()))\n"
        "        os.rename('draft', 'hanging')\n"
        "        time.sleep(600)\n"
    )
    process = start(tmp_path, "--candidates", "uce,esd", *options, PYTEST_ADDOPTS="-p hang")
    wait_for(tmp_path / "hanging")
    for number in (process.pid, int((tmp_path / "hanging").read_text())):
        os.kill(number, signal.SIGKILL)
    assert finish(process).returncode == -signal.SIGKILL
    result = run(tmp_path, "--candidates", "uce,esd", *options)
    assert result.returncode == ALL_RANKED, result.stdout + result.stderr
    assert "[1/2] method:uce: nothing has changed" in result.stdout
    assert "[2/2] method:esd\n" in result.stdout
    assert len(board(tmp_path)["rows"]) == 2
