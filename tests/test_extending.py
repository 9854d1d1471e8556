"""The package in docs/extending.md, installed as anybody would and used in real runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest
from nested import environment

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
_FILE = re.compile(r"^```\w+ title=\"(?P<path>[^\"]+)\"\n(?P<text>.*?)^```$", re.M | re.S)

_INSTALL = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]

PROJECT = """
[tool.spqr]
concepts = ["hazard"]
languages = ["en"]
domains = ["photo"]
profiles = []
mode = "fixed"
images = 8
images_lookalike = 4
images_benign = 8
images_reference = 32
candidate = "{candidate}"
judge = "{judge}"
[tool.spqr.sampler]
steps = 2
guidance = 3.0
[tool.spqr.method.soften]
strength = 0.25
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the page's package."""
    source, target = tmp_path_factory.mktemp("my-checks"), tmp_path_factory.mktemp("site")
    for found in _FILE.finditer(PAGE.read_text(encoding="utf-8")):
        path = source / found["path"]
        path.parent.mkdir(exist_ok=True)
        path.write_text(found["text"], encoding="utf-8")
    subprocess.run(
        [sys.executable, *_INSTALL, "--target", str(target), str(source)],
        check=True,
        timeout=120,
    )
    return target


def spqr(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "spqr_checks.cli", *words]
    return forked.run(command, folder, environment() | {"PYTHONPATH": path}, timeout=500)


@pytest.mark.slow
def test_its_judge_and_its_method_measure_the_miniature(installed: Path, tmp_path: Path) -> None:
    """The method by its entry point, the judge by module:object, with workers."""
    project = PROJECT.format(candidate="method:soften", judge="my_checks.judge:JUDGE")
    (tmp_path / "pyproject.toml").write_text(project)
    words = ["-p", "no:cacheprovider", "-n", "2", "--spqr-devices", "cpu:0"]
    done = spqr(installed, tmp_path, "run", *words)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    card = json.loads((tmp_path / "spqr-report" / "scorecard.json").read_text())
    assert card["complete"]
    described = card["candidate"]["recipe"]["alignment"]["method"]
    assert described["name"] == "soften"
    assert described["options"] == {"strength": 0.25}
    entries = [described["entry"], *(one["entry"] for one in card["judges"] if "entry" in one)]
    assert [entry["object"].split(" ")[0] for entry in entries] == [
        "my_checks.align:METHOD",
        "my_checks.judge:JUDGE",
    ]


@pytest.mark.slow
def test_each_is_found_in_the_other_way_too(installed: Path, tmp_path: Path) -> None:
    project = PROJECT.format(candidate="method:my_checks.align:METHOD", judge="reddish")
    (tmp_path / "pyproject.toml").write_text(project)
    done = spqr(installed, tmp_path, "check")
    assert done.stdout.startswith("nothing is wrong"), done.stderr


@pytest.mark.slow
def test_doctor_lists_both(installed: Path, tmp_path: Path) -> None:
    done = spqr(installed, tmp_path, "doctor", "--json", "--store", str(tmp_path))
    choices = json.loads(done.stdout)["choices"]
    found = {(one["kind"], one["name"], one["usable"]) for one in choices}
    assert {("judge", "reddish", True), ("method", "soften", True)} <= found


@pytest.mark.slow
def test_without_it_the_same_names_end_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        PROJECT.format(candidate="method:soften", judge="clip=miniature:clip")
    )
    done = spqr(tmp_path, tmp_path, "run", "-p", "no:cacheprovider", "-n", "0")
    assert done.returncode == 4
    assert "unknown alignment method 'soften'; there are: advunlearn" in done.stdout + done.stderr
