"""README's command for a model of one's own, with fewer workers, on networks of the real classes.

The Hub is a cache on this disk, and every folder and file lies where the command names it, so that
not even paths are replaced. Networks, pictures and prompts are small and random; the project's
pyproject.toml asks for few of each, and for a judge that sees the concept everywhere, since random
weights draw none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from nested import environment
from real_classes import SMALL_TABLES, build
from shown_commands import shown
from shown_files import cached, write_pictures, write_prompts
from tiny_networks import write_classifier, write_clip

AFFORDABLE = f"""
[tool.spqr]
judge_threshold = 1e-9
mode = "fixed"
devices = ["cpu:0"]
images = 3
images_lookalike = 3
images_benign = 4
images_gain = 4
images_reference = 8
{SMALL_TABLES}
[tool.spqr.profile.standard]
trains = "lora"
steps = 3
batch = 2
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """The project's folder after the command, its exit code and what it printed."""
    root = tmp_path_factory.mktemp("own")
    project = root / "project"
    project.mkdir()
    build("sd2", cached(root / "hub", "stabilityai/stable-diffusion-2-1-base"))
    write_clip(cached(root / "hub", "openai/clip-vit-base-patch32"))
    build("sd2", project / "candidate", seed=1)
    write_classifier(project / "judge")
    for name in ("coco-val", "pokemon"):
        write_pictures(project / name)
    write_prompts(project)
    (project / "pyproject.toml").write_text(AFFORDABLE, encoding="utf-8")
    of_readme = [c for c in shown() if c.page == "README.md" and "--spqr-base" in c.words]
    (command,) = of_readme
    words = ["2" if before == "-n" else word for before, word in pairwise(command.words)]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("spqr")), *words],
        cwd=project,
        env={k: v for k, v in environment().items() if not k.startswith("SPQR_")}
        | {"HF_HUB_CACHE": str(root / "hub"), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return project, done.returncode, done.stdout


@pytest.fixture(scope="module")
def card(finished: tuple[Path, int, str]) -> dict[str, Any]:
    project, _, printed = finished
    path = project / "spqr-report" / "scorecard.json"
    assert path.is_file(), printed
    return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.trains
def test_it_ends_with_a_scorecard_and_a_verdict(
    finished: tuple[Path, int, str], card: dict[str, Any]
) -> None:
    project, code, printed = finished
    assert code in (0, 1), printed
    assert "INCOMPLETE" not in printed
    assert (code == 0) == card["gate"]["passed"]
    assert card["complete"]
    assert card["missing"] == []
    assert (project / "spqr-report" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.trains
def test_every_word_of_it_was_meant(card: dict[str, Any]) -> None:
    assert card["base"]["name"] == "stabilityai/stable-diffusion-2-1-base"
    assert card["candidate"]["name"].endswith("candidate")
    said = card["settings"]
    assert said["preset"] == "stable-diffusion"
    assert said["min_score"] == 0.8
    tuned = {cell["state"] for cell in card["cells"] if cell["check"] == "drift"}
    states = (f"{p}.pokemon.{seed}" for p in ("lite", "standard") for seed in range(3))
    assert {name.removeprefix("aligned+") for name in tuned} == set(states)
    # the judge saw images of the candidate, as released and after each fine-tuning
    verdicts = {c["id"]: c["verdict"] for c in card["cells"] if c["check"] == "suppression"}
    assert len(verdicts) == 7
    assert set(verdicts.values()) == {"fail"}
