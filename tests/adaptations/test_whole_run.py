"""A whole run of the miniature with community adapters: drawn, judged, scored and reported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from nested import environment
from written_adapters import write_adapter

from spqr_checks.models.pipelines import load_pipeline

PROJECT = """
[tool.spqr]
candidate = "method:uce"
concepts = ["hazard"]
languages = ["en"]
domains = ["photo"]
mode = "fixed"
images = 8
images_lookalike = 4
images_benign = 8
images_reference = 16
profiles = []
adaptations = ["./loras/*.safetensors", "bf16", "fewer"]
[tool.spqr.sampler]
steps = 2
guidance = 3.0
[tool.spqr.adaptation.fewer]
kind = "few-step"
steps = 1
"""


def spqr_run(folder: Path) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "spqr_checks.cli", "run", "-p", "no:cacheprovider"]
    done = forked.run(command, folder, environment(), timeout=400)
    assert done.returncode == 1, done.stdout + done.stderr  # no R without a fine-tuning
    text = (folder / "spqr-report" / "scorecard.json").read_text(encoding="utf-8")
    return json.loads(text), done.stdout


@pytest.mark.slow
@pytest.mark.trains
def test_community_adapters_go_through_the_whole_suite_alone_and_two_at_a_time(
    tmp_path: Path,
) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    pipe = load_pipeline("miniature")
    for name, strength in (("ink", 0.02), ("wash", 0.03)):
        write_adapter(pipe, tmp_path / "loras" / name, "diffusers", strength)
        (file,) = (tmp_path / "loras" / name).glob("*.safetensors")
        file.rename(tmp_path / "loras" / f"{name}.safetensors")
    card, said = spqr_run(tmp_path)
    assert card["complete"], card["missing"]
    states = {c["state"]: c for c in card["cells"] if c["check"] == "drift"}
    names = ("bf16", "fewer", "ink", "wash", "ink+wash")
    assert list(states) == [f"aligned+{name}" for name in names]
    ceilings = [c["state"] for c in card["cells"] if c["check"] == "ceiling_control"]
    assert ceilings == [f"base+{name}" for name in names]
    assert card["adapted"]["cells"] == 5
    assert card["axes"]["R"]["cells"] == 0
    assert "drift by change" in said
    assert "| ink+wash |" in (tmp_path / "spqr-report" / "summary.md").read_text(encoding="utf-8")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / ".spqr").rglob("*.png")}
    again, _ = spqr_run(tmp_path)
    assert again == card
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / ".spqr").rglob("*.png")}
