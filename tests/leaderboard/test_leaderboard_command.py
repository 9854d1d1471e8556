"""Arguments of `spqr leaderboard`, and how its children are watched; no suite is run here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from boards import MODELS, broken, card

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.leaderboard import children
from spqr_checks.reports.json_file import read_scorecard, write_scorecard
from spqr_checks.scoring.leaderboard.board import Entry

ALL_RANKED, INTERRUPTED, INCOMPLETE, USAGE = 0, 2, 3, 4


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SPQR_STORE", "SPQR_BASE", "SPQR_CANDIDATE", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def scorecards(folder: Path) -> list[str]:
    made = [card(MODELS[0]), card(MODELS[1]), broken(replace(MODELS[2], name="method:sdd"))]
    paths = [folder / f"{number}.json" for number in range(3)]
    for path, one in zip(paths, made, strict=True):
        write_scorecard(one, path)
    return [str(path) for path in paths]


class Runs:
    """Stands in for the children: gives scorecards and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str], Path]] = []
        self.interrupt_at: str | None = None

    def __call__(self, name: str, arguments: Sequence[str], folder: Path) -> Entry:
        self.asked.append((name, list(arguments), folder))
        if name == self.interrupt_at:
            raise children.StoppedError
        return Entry(name, card(next(m for m in MODELS if m.name == name)))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    fake = Runs()
    monkeypatch.setattr(children, "run", fake)
    return fake


# ---- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to rank"),
        (["--candidates", "base,method:nope"], "candidate method:nope: unknown alignment method"),
        (["--candidates", "base,./nowhere"], "candidate ./nowhere"),
        (["--candidates", "base,uce,uce"], "method:uce twice"),
        (
            ["--candidates", "base", "--spqr-candidate", "uce"],
            "name the candidates in --candidates",
        ),
        (["--candidates", "base", "--spqr-report", "x"], "--out"),
        (["--candidates", "base", "--spqr-image", "3"], "unrecognized arguments: --spqr-image"),
        (["--candidates", "base", "--spqr-images", "three"], "'images'"),
        (["--candidates", "base", "--spqr-languages", "xx"], "unknown language 'xx'"),
        (["--candidates"], "expected one argument"),
        (["--candidate", "base"], "unrecognized arguments: --candidate base"),
        (["--scorecards", "none.json"], "none.json"),
        (["--scorecards", "CARD", "CARD"], "the same candidate"),
        (["--scorecards", "CARD", "--spqr-images", "3"], "only --spqr-store goes with"),
        (["surplus"], "surplus"),
    ],
)
def test_a_mistake_ends_with_exit_code_4_before_anything_is_run(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    runs: Runs,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = scorecards(tmp_path)[0]
    before = sorted(tmp_path.rglob("*"))
    assert main(["leaderboard", *(first if a == "CARD" else a for a in arguments)]) == USAGE
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) <= 3
    assert runs.asked == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_foreign_file_in_the_way_is_found_before_the_first_run(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out" / "method-uce" / "scorecard.json"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert main(["leaderboard", "--candidates", "base,uce", "--out", "out"]) == USAGE
    assert "is no scorecard" in capsys.readouterr().err
    assert runs.asked == []
    assert path.read_text() == "mine"


def test_help_lists_the_settings_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["leaderboard", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "--spqr-images" in out
    assert "3 some have no number" in out


# ---- runs ------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_every_candidate_is_run_in_turn_with_the_settings_given(tmp_path: Path, runs: Runs) -> None:
    arguments = ["-n", "4", "--spqr-images=12", "--out", "out"]
    assert main(["leaderboard", "--candidates", "uce,base", *arguments]) == ALL_RANKED
    assert [name for name, _, _ in runs.asked] == ["method:uce", "base"]
    _, asked, folder = runs.asked[0]
    assert asked[:2] == ["-n", "4"]
    assert set(asked[2:]) == {
        "--spqr-images=12",
        "--spqr-mode=fixed",
        "--spqr-candidate=method:uce",
        "--spqr-report=out/method-uce",
    }
    assert folder == Path("out/method-uce")
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert [row["name"] for row in board["rows"]] == ["method:uce", "base"]


@pytest.mark.heavy
def test_the_settings_have_short_names_here(runs: Runs) -> None:
    arguments = ["--profiles", "lite,standard", "--seeds=0,1", "--images", "12"]
    assert main(["leaderboard", "--candidates", "base", *arguments]) == ALL_RANKED
    asked = runs.asked[0][1]
    assert {"--spqr-profiles=lite,standard", "--spqr-seeds=0,1", "--spqr-images=12"} < set(asked)


def test_candidates_are_not_compared_on_different_images(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["leaderboard", "--candidates", "uce,base", "--spqr-mode=sequential"]) == 4
    assert "the same images" in capsys.readouterr().err
    assert not runs.asked


@pytest.mark.heavy
def test_an_interruption_stops_the_leaderboard(
    tmp_path: Path, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.interrupt_at = "base"
    assert main(["leaderboard", "--candidates", "uce,base,esd"]) == INTERRUPTED
    assert [name for name, _, _ in runs.asked] == ["method:uce", "base"]
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "spqr-leaderboard").exists()


def test_runs_and_finished_scorecards_stand_on_one_leaderboard(tmp_path: Path, runs: Runs) -> None:
    esd, sdd = scorecards(tmp_path)[1:]
    arguments = ["--candidates", "uce", "--scorecards", esd, sdd]
    assert main(["leaderboard", *arguments]) == INCOMPLETE
    board = json.loads((tmp_path / "spqr-leaderboard" / "leaderboard.json").read_text())
    assert [row["name"] for row in board["rows"]] == ["method:uce", "method:esd", "method:sdd"]
    assert [row["ranks"] for row in board["rows"]] == [[1, 2], [1, 2], None]


@pytest.mark.heavy
def test_ranking_scorecards_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from spqr_checks.cli.main import main\n"
        f"status = main(['leaderboard', '--scorecards'] + {scorecards(tmp_path)!r})\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(status)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert result.returncode == INCOMPLETE, result.stderr


# ---- children --------------------------------------------------------------------------------


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The child runs this code instead of the suites; its last argument is the scorecard's path."""
    real = subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        assert command[1:5] == ["-P", "-m", "spqr_checks.cli", "run"]
        return real([sys.executable, "-c", code, *command[5:]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)


def test_a_scorecard_that_was_written_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = scorecards(tmp_path)[:1]
    folder = tmp_path / "out"
    folder.mkdir()
    stand_in(monkeypatch, f"import shutil, sys; shutil.copy({path!r}, sys.argv[1]); sys.exit(1)")
    entry = children.run("x", [str(folder / "scorecard.json")], folder)
    assert entry == Entry("x", read_scorecard(Path(path)))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9 without a scorecard"),
        ("import sys; sys.exit(5)", "ended with exit code 5 without a scorecard"),
        (
            "import sys; print('hi\\nERROR: no such judge\\nsay x', file=sys.stderr); sys.exit(4)",
            "ended with exit code 4 without a scorecard: no such judge say x",
        ),
        ("raise OSError('odd')", "ended with exit code 1 without a scorecard: OSError: odd"),
    ],
)
def test_a_run_without_a_scorecard_says_why_and_no_old_one_is_taken(
    code: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    stale = tmp_path / "scorecard.json"
    write_scorecard(card(MODELS[0]), stale)
    stand_in(monkeypatch, code)
    entry = children.run("x", [], tmp_path)
    assert entry.card is None
    assert entry.fault == f"its run {reason}"
    assert not stale.exists()
    if "judge" in code:
        assert "no such judge" in capfd.readouterr().err


def test_a_child_that_was_interrupted_interrupts_the_leaderboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, "import sys; sys.exit(2)")
    with pytest.raises(children.StoppedError):
        children.run("x", [], tmp_path)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_reaches_the_child_exactly_once(number: str, tmp_path: Path) -> None:
    # in a process of its own, as this one's handlers belong to pytest
    child = (
        "import signal, sys, time\n"
        "count = []\n"
        "signal.signal(signal.SIGINT, lambda *_: count.append(1))\n"
        "open('ready', 'w').close()\n"
        "while not count: time.sleep(0.05)\n"
        "time.sleep(0.5)\n"
        "open('count', 'w').write(str(len(count)))\n"
    )
    parent = (
        "import os, signal, subprocess, sys, threading, time\n"
        "from pathlib import Path\n"
        "from spqr_checks.leaderboard import children\n"
        "real = subprocess.Popen\n"
        f"subprocess.Popen = lambda c, **k: real([sys.executable, '-c', {child!r}], **k)\n"
        "def shoot():\n"
        "    while not os.path.exists('ready'): time.sleep(0.05)\n"
        f"    os.kill(os.getpid(), signal.{number})\n"
        "threading.Thread(target=shoot, daemon=True).start()\n"
        "try: children.run('x', [], Path('.'))\n"
        "except children.StoppedError: sys.exit(7)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", parent], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 7, result.stderr
    assert (tmp_path / "count").read_text() == "1"


def test_a_folder_that_cannot_be_emptied_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "scorecard.json").mkdir()
    with pytest.raises(UserError, match="cannot be removed"):
        children.run("x", [], tmp_path)
