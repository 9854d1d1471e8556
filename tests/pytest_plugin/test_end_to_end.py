"""Whole runs with real pipelines, training and judging; small, but nothing is made up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import forked
import pytest
from nested import environment

from spqr_checks.matrix.checks import CHECKS

SMALL = {
    "concepts": ["hazard"],
    "languages": ["en"],
    "domains": ["photo"],
    "images": 8,
    "images_lookalike": 4,
    "images_benign": 8,
    "images_gain": 8,
    "images_reference": 32,
    "dataset_limit": 32,
    "max_images": 24,
}
FAST = "\n[tool.spqr.sampler]\nsteps = 2\nguidance = 3.0\n[tool.spqr.profile.lite]\nsteps = 3\n"


def write_project(folder: Path, **settings: Any) -> None:
    table = SMALL | {"candidate": "method:uce"} | settings
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    (folder / "pyproject.toml").write_text("[tool.spqr]\n" + "\n".join(lines) + "\n" + FAST)


def command(*extra: str) -> list[str]:
    return [sys.executable, "-m", "spqr_checks.cli", "run", "-p", "no:cacheprovider", *extra]


def spqr_run(folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    return forked.run(command(*extra), folder, environment(), timeout=400)


def card(folder: Path) -> dict[str, Any]:
    card = dict(json.loads((folder / "spqr-report" / "scorecard.json").read_text()))
    for result in card["cells"]:  # what no judge has looked at is not said to be safe
        judged = CHECKS[result["check"]].reads == "verdicts"
        assert all((ref["flagged"] is not None) is judged for ref in result["images"])
    return card


def entries(folder: Path) -> int:
    """How much the store holds."""
    return len(list((folder / ".spqr").glob("*/??/*/manifest.json")))


@pytest.mark.slow
@pytest.mark.trains
def test_killed_at_random_moments_the_same_command_ends_in_the_same_bytes(tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "one", tmp_path / "two"
    for folder in (undisturbed, disturbed):
        folder.mkdir()
        write_project(folder)
    assert spqr_run(undisturbed, "-n0").returncode in (0, 1)
    rng, total = random.Random(7), entries(undisturbed)
    for part, workers in ((0.1, "-n2"), (0.5, "-n0")):
        wanted = int(total * rng.uniform(part, part + 0.3))
        said = tmp_path / "out", tmp_path / "err"
        process = forked.start(command(workers), disturbed, environment(), *said)
        while entries(disturbed) < wanted and process.is_alive():
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.1))
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it had ended before"
    assert spqr_run(disturbed, "-n0").returncode in (0, 1)
    one, two = (
        (folder / "spqr-report" / "scorecard.json").read_bytes()
        for folder in (undisturbed, disturbed)
    )
    assert one == two


@pytest.mark.slow
def test_a_judge_that_raises_leaves_the_run_incomplete(tmp_path: Path) -> None:
    write_project(tmp_path, profiles=[], candidate="base")
    (tmp_path / "broken_judge.py").write_text(
        "from spqr_checks.judges.classifier import ClassifierJudge\n"
        "from spqr_checks.errors import JudgeError\n"
        "def judge(self, images):\n"
        "    raise JudgeError('the judge is out of order')\n"
        "ClassifierJudge.judge = judge\n"
    )
    broken = environment() | {"PYTHONPATH": str(tmp_path)}
    result = forked.run(command("-p", "broken_judge"), tmp_path, broken, timeout=400)
    assert result.returncode == 3, result.stdout + result.stderr
    scorecard = card(tmp_path)
    assert scorecard["spqr"] is None
    assert not scorecard["complete"]
    assert "out of order" in json.dumps(scorecard["missing"])


@pytest.mark.slow
@pytest.mark.trains
def test_a_fine_tuning_set_that_names_a_suppressed_concept_is_refused(tmp_path: Path) -> None:
    from PIL import Image

    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (32, 32)).save(data / "one.png")
    (data / "one.txt").write_text("a big red hazard sign")
    write_project(tmp_path, datasets=[str(data)])
    result = spqr_run(tmp_path)
    assert result.returncode == 4
    assert "hazard" in result.stderr
    assert not (tmp_path / ".spqr").exists()
