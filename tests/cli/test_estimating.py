"""`spqr estimate`: what it says, and that it does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from warm import arguments, fill

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.cli.estimate import spell, within
from spqr_checks.cli.main import main
from spqr_checks.estimate import probe as probing
from spqr_checks.estimate.estimate import Span
from spqr_checks.store.timings import Timing, Work

USAGE = 4
BESIDE = "start, reading, scores"
SMALL: dict[str, Any] = {"concepts": "hazard"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SPQR_STORE", "SPQR_BASE", "SPQR_CANDIDATE", "SPQR_REPORT"):
        monkeypatch.delenv(name, raising=False)


def options(folder: Path, **settings: Any) -> list[str]:
    """The command line of a small run."""
    given = arguments(folder, **(SMALL | settings))
    return [argument for argument in given if argument.startswith("--spqr")]


def say(capsys: pytest.CaptureFixture[str], *given: str) -> tuple[dict[str, list[str]], str]:
    """What the table says after each name, word by word, and the whole output."""
    assert main(["estimate", *given]) == 0
    out = capsys.readouterr().out
    table = [line for line in out.splitlines()[1:] if not line.startswith("note")]
    names = [line.split("  ")[0] for line in table]
    return {n: line.removeprefix(n).split() for n, line in zip(names, table, strict=True)}, out


# ---- what there is to make ---------------------------------------------------------------------


def test_a_cold_store_lacks_everything_and_knows_no_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    table, out = say(capsys, *given)
    assert table["alignment esd"][:3] == ["0", "1", "unknown"]
    assert table["fine-tuning lite"][:3] == ["0", "1", "unknown"]
    assert table.pop(BESIDE)[-1] == "s"
    assert [row[-1] for row in table.values()] == ["unknown"] * 9  # seven kinds, sum, wall time
    assert out.count("note: unknown: nothing of the kind was made here yet; `spqr estimate") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_warm_store_needs_the_run_s_own_time_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, **SMALL)
    table, out = say(capsys, *options(tmp_path))
    assert "note: everything is in the store: nothing to make" in out
    assert "unknown" not in out
    assert table.pop("all work") == ["0", "s"]
    assert table.pop(BESIDE) == table.pop("wall time, 1 process") != ["0", "s"]
    assert {tuple(line[1:]) for line in table.values()} == {("0", "0", "s")}


def test_what_was_wiped_is_to_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = fill(tmp_path, **SMALL)
    session.run.store.prune(["verdicts"])
    table, _ = say(capsys, *options(tmp_path))
    # harmful prompts of four states and look-alikes of the base, 24 images each
    assert table["judge"][:3] == ["0", "120", "unknown"]
    assert all(line[1] == "0" for name, line in table.items() if name.startswith("image"))


# ---- times -------------------------------------------------------------------------------------


def keep_times(session: MeasuringSession, seconds: dict[str, float]) -> None:
    """Lets the engine make every missing unit of a kind in no time, and sets its clock."""
    from spqr_checks.estimate.estimate import plans
    from spqr_checks.store.timings import record

    for key, task in plans(session)[-1].missing.items():
        if task.work.name in seconds:
            timing = Timing(**dict(task.work), label="x", seconds=seconds[task.work.name])
            record(session.run.store.root, "kind", key, timing)


def test_times_of_earlier_artefacts_are_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = fill(tmp_path, **SMALL)
    session.run.store.prune(["verdicts"])
    keep_times(session, {"judge": 90.0})
    table, out = say(capsys, *options(tmp_path))
    assert table["judge"] == ["0", "120", "8", "min"]  # five batches of 90 seconds
    assert table["all work"] == table["wall time, 1 process"] == ["8", "min"]
    assert "unknown" not in out
    # as many owners as workers, whatever cores there are
    shares = ",".join(f"cpu:{k}" for k in range(5))
    table, _ = say(capsys, *options(tmp_path), "-n", "5", "--spqr-devices", shares)
    assert table["all work"] == ["8", "min"]
    own, whole = table[BESIDE], table["wall time, 5 processes"]
    assert round(float(own[0])) == int(whole[0]) - 90


@pytest.mark.heavy
def test_files_that_hold_no_timing_are_named_and_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = fill(tmp_path, **SMALL)
    session.run.store.prune(["verdicts"])
    keep_times(session, {"judge": 90.0})
    files = sorted((tmp_path / ".spqr" / "timings").rglob("*.json"))
    for file in files[1:]:
        file.write_text('{"seconds": NaN}')
    table, out = say(capsys, *options(tmp_path))
    assert table["judge"] == ["0", "120", "8", "min"]
    assert f"note: 4 files hold no timing and were ignored: {files[1]}, " in out
    assert out.rstrip().endswith("…")
    files[0].write_text("")
    table, _ = say(capsys, *options(tmp_path))
    assert table["judge"][2] == "unknown"


def test_a_sequential_run_says_how_far_it_may_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = say(capsys, *options(tmp_path, mode="sequential", max_images=72))
    assert "note: sequential: 24 to 72 images for each safety cell" in out
    assert "note: to pass at 20 % takes 24 images if none is flagged and about 120 if 10 %" in out
    assert "–" in next(line for line in out.splitlines() if line.startswith("judge"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.04, "0 s"),
        (0.26, "0.3 s"),
        (10.0, "10 s"),
        (99.4, "99 s"),
        (120, "2 min"),
        (5900, "98 min"),
        (6000, "1 h 40 min"),
        (36000, "10 h"),
        (400000, "111 h"),
    ],
)
def test_times_are_written_as_exactly_as_a_forecast_deserves(seconds: float, text: str) -> None:
    assert spell(seconds) == text


# ---- the probe ---------------------------------------------------------------------------------


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the probe: knows all but the alignment, and notes what it was asked for."""
    asked: list[str] = []

    def probe(session: MeasuringSession, wanted: Sequence[Work]) -> list[Timing]:
        asked.extend(work.name for work in wanted)
        known = [work for work in wanted if not work.name.startswith("alignment")]
        return [Timing(**dict(work), label="probe", seconds=60.0) for work in known]

    monkeypatch.setattr(probing, "probe", probe)
    return asked


@pytest.mark.heavy
def test_the_probe_is_asked_for_what_nothing_is_known_of(
    tmp_path: Path, probed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    session = fill(tmp_path, **SMALL)
    session.run.store.prune(["verdicts", "images"])
    keep_times(session, {"judge": 1.0})
    table, out = say(capsys, *options(tmp_path), "--probe")
    assert probed == ["alignment esd", "fine-tuning lite", "images"]
    assert table["fine-tuning lite"] == ["0", "1", "60", "s"]
    assert table["alignment esd"] == ["0", "1", "unknown"]
    assert table["all work"][:2] == ["at", "least"]
    assert "note: by a probe, so roughly: fine-tuning lite, images" in out
    assert "the probe's time was over" in out


@pytest.mark.heavy
def test_nothing_is_probed_without_being_asked_or_needed(
    tmp_path: Path, probed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    say(capsys, *options(tmp_path))
    fill(tmp_path, **SMALL)
    say(capsys, *options(tmp_path), "--probe")
    assert probed == []


# ---- mistakes and manners ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--spqr-candidate", "method:nope"], "unknown alignment method 'nope'"),
        (["--spqr-images", "many"], "'images'"),
        (["--spqr-languages", "xx"], "unknown language 'xx'"),
        (["--spqr-image", "3"], "unrecognized arguments: --spqr-image"),
        (["-n", "two"], "'two' is not a number of processes"),
        (["-n"], "expected one argument"),
        (["surplus"], "surplus"),
        (["--spqr-store", "FILE"], "must be a folder"),
    ],
)
def test_a_mistake_is_exit_code_4_and_writes_nothing(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "FILE").write_text("no store")
    before = sorted(tmp_path.rglob("*"))
    assert main(["estimate", *given]) == USAGE
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) <= 2
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_help_lists_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["estimate", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "--spqr-max-images" in out
    assert "--probe" in out


@pytest.mark.heavy
def test_neither_a_cold_nor_a_warm_estimate_loads_torch_or_writes(tmp_path: Path) -> None:
    given = options(tmp_path)
    code = (
        "import sys\n"
        "from spqr_checks.cli.main import main\n"
        f"assert main({['estimate', *given]!r}) == 0\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = sorted(tmp_path.rglob("*"))
    assert "`spqr estimate --probe` times a little of each" in run()
    assert sorted(tmp_path.rglob("*")) == before
    fill(tmp_path, **SMALL)
    before = sorted(tmp_path.rglob("*"))
    assert "nothing to make" in run()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("wall", "unknown", "says"),
    [
        (Span(1, 2, 3), False, "is enough for the longest run"),
        (Span(1, 2, 61), False, "is enough for what is expected, not for the longest run"),
        (Span(1, 61, 99), False, "is too short for what is expected; what is left stays undecided"),
        (Span(61, 70, 99), False, "is too short even if every cell is clear at its first look"),
        (Span(1, 2, 3), True, "cannot be held against times that are not known"),
        (Span(61, 70, 99), True, "is too short even if every cell is clear at its first look"),
    ],
)
def test_a_budget_is_held_against_what_is_expected(wall: Span, unknown: bool, says: str) -> None:
    assert within(wall, unknown, 60) == f"the budget of 60 s {says}"


def test_an_estimate_with_a_budget_says_whether_it_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, **SMALL)
    _, out = say(capsys, *options(tmp_path), "--spqr-budget", "2h")
    assert "note: the budget of 2 h 0 min is enough for the longest run" in out
    _, out = say(capsys, *options(tmp_path))
    assert "budget" not in out
