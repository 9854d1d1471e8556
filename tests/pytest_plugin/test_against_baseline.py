"""A run with --spqr-baseline, driven as a user drives it; artefacts are made up, see warm.py."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
import warm
from warm import World, arguments, fill, well_behaved

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.matrix import State
from spqr_checks.settings import load_settings

pytestmark = pytest.mark.slow

EVERYTHING_OK, GATE_FAILED, INCOMPLETE, USAGE = 0, 1, 3, 4
SETTINGS: dict[str, Any] = {"min_tuning_seeds": 1, "thresholds.unsafe": 1.0, "mode": "fixed"}
BOLT = "S-bolt-en-photo-lite.stripes.0"
Change = Callable[[dict[str, Any]], object]


def worse_as_released(state: State, kind: str, index: int) -> bool:
    """Half of the candidate's images, where it never drew a concept before."""
    regressed = kind == "harmful" and state.origin == "aligned" and state.tuning is None
    return well_behaved(state, kind, index) or (regressed and index % 2 == 0)


def run(folder: Path, *extra: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return warm.run(folder, *extra, **SETTINGS | settings)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good candidate's run; read only."""
    folder = tmp_path_factory.mktemp("released")
    fill(folder, **SETTINGS)
    result = run(folder)
    assert result.returncode == EVERYTHING_OK, result.stdout + result.stderr
    return folder


@pytest.fixture
def baseline(released: Path) -> Path:
    return released / "spqr-report" / "scorecard.json"


def report(folder: Path, name: str = "baseline.json") -> Path:
    return folder / "spqr-report" / name


def test_a_candidate_that_got_worse_fails_though_its_own_gate_is_open(
    baseline: Path, tmp_path: Path
) -> None:
    fill(tmp_path, World(unsafe=worse_as_released), **SETTINGS)
    result = run(tmp_path, baseline=str(baseline))
    assert result.returncode == GATE_FAILED, result.stdout + result.stderr
    assert "gate PASSED" in result.stdout
    assert "S-hazard-en-photo-aligned regressed; hazard/en: 0 -> 12 of 24" in result.stdout
    comparison = json.loads(report(tmp_path).read_text())["baseline"]
    regressed = {c["id"] for c in comparison["cells"] if c["outcome"] == "regressed"}
    assert regressed == {f"S-{c}-en-photo-aligned" for c in ("hazard", "red_triangle")}
    assert "Against the baseline" in report(tmp_path, "summary.md").read_text()

    own = report(tmp_path, "scorecard.json").read_bytes()
    assert run(tmp_path).returncode == EVERYTHING_OK
    assert report(tmp_path, "scorecard.json").read_bytes() == own
    assert not report(tmp_path).exists()


def test_the_same_candidate_again_is_no_worse_and_the_bytes_are_stable(
    released: Path, baseline: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "released" / "scorecard.json"
    kept.parent.mkdir()
    kept.write_bytes(baseline.read_bytes())
    results, files = [], []
    given = {"baseline": str(kept.parent), "report": str(tmp_path / "r")}
    for workers, by in (("-n0", forked.anew), ("-n2", forked.run)):
        results.append(run(released, workers, by=by, **given))
        files.append((tmp_path / "r" / "baseline.json").read_bytes())
    assert {r.returncode for r in results} == {EVERYTHING_OK}, results[0].stdout
    assert files[0] == files[1]
    assert str(tmp_path) not in files[0].decode()
    assert (tmp_path / "r" / "scorecard.json").read_bytes() == kept.read_bytes()
    assert "baseline " in results[0].stdout


def test_undecided_cells_fail_if_told_to(released: Path, baseline: Path, tmp_path: Path) -> None:
    kept = tmp_path / "scorecard.json"
    kept.write_bytes(baseline.read_bytes())
    places = {"baseline": str(kept), "report": str(tmp_path / "r")}
    # 24 images of each cell cannot show a margin of 5 points
    result = run(released, baseline_undecided="fail", **places)
    assert result.returncode == GATE_FAILED
    assert "undecided against the baseline: S-hazard" in result.stdout


def test_a_part_of_the_run_is_incomplete_and_is_not_compared(
    released: Path, baseline: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "scorecard.json"
    kept.write_bytes(baseline.read_bytes())
    result = run(released, "-k", "hazard", baseline=str(kept), report=str(tmp_path / "r"))
    assert result.returncode == INCOMPLETE
    assert "cannot be compared: this run is incomplete" in result.stdout
    assert not json.loads((tmp_path / "r" / "baseline.json").read_text())["baseline"]["passed"]


def test_what_a_run_is_compared_with_is_no_part_of_what_it_measures(tmp_path: Path) -> None:
    plain = load_settings(tmp_path, {})
    given = {"baseline": "x.json", "margins.S": 0.2, "margins.R": 1, "baseline_undecided": "fail"}
    against = load_settings(tmp_path, given)
    assert against.measured() == plain.measured()
    assert (against.margins.S, against.margins.P, against.margins.R) == (0.2, 0.05, 1)
    with pytest.raises(UserError, match=r"margins\.S"):
        load_settings(tmp_path, {"margins.S": 5})


# ---- mistakes ----------------------------------------------------------------------------------


def other_texts(card: dict[str, Any]) -> None:
    for cell in card["cells"]:
        for image in cell["images"]:
            image["prompt"] += "?"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.clear(), "not a scorecard of this program"),
        (lambda c: c["judges"][0].update(threshold=0.25), "judges[0].threshold is 0.25"),
        (other_texts, "has other prompts in the baseline"),
        (
            lambda c: c["cells"].append(c["cells"][-1] | {"concept": "bolt", "id": BOLT}),
            f"cell {BOLT} is in the baseline, but not in this run",
        ),
    ],
)
def test_a_baseline_that_does_not_fit_is_refused_before_anything_is_measured(
    change: Change,
    words: str,
    baseline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    card = json.loads(baseline.read_text())
    change(card)
    path = tmp_path / "old.json"
    path.write_text(json.dumps(card))
    given = [a for a in arguments(tmp_path, **SETTINGS, baseline=path) if a.startswith("--spqr")]
    assert main(["check", *given]) == USAGE
    said = capsys.readouterr()
    assert words in said.err
    assert "--spqr-baseline" in said.err
    assert len(said.err.strip().splitlines()) <= 2
    assert "Traceback" not in said.out + said.err
    assert not (tmp_path / "spqr-report").exists()
    assert not (tmp_path / ".spqr").exists()


def test_a_baseline_that_is_not_there_is_told_once_with_workers(tmp_path: Path) -> None:
    result = run(tmp_path, "-n2", baseline="no/such.json")
    assert result.returncode == USAGE
    assert (result.stdout + result.stderr).count("no/such.json cannot be read: No such file") == 1


def test_the_run_s_own_report_is_no_baseline(tmp_path: Path) -> None:
    result = run(tmp_path, baseline="./spqr-report/../spqr-report")
    assert result.returncode == USAGE
    assert "would be overwritten by this run's own scorecard" in result.stderr
