"""The three suites on every pipeline class, from the command line to a complete scorecard."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import forked
import pytest
from checkers import add_checker
from nested import environment
from real_classes import CLASSES, SMALL, SMALL_TABLES, build
from written_adapters import write_adapter

from spqr_checks.matrix.checks import CHECKS
from spqr_checks.models.pipelines import load_pipeline

_EACH = """
import contextlib, os, sys
from pathlib import Path
from spqr_checks.cli import main as cli
for folder in map(Path, sys.argv[1:]):
    os.chdir(folder)
    with (folder / "out.txt").open("w") as out, contextlib.redirect_stdout(out):
        code = cli.main(["run", "-p", "no:cacheprovider"])
    (folder / "code.txt").write_text(str(int(code)))
"""
"""`spqr run` in each folder, all in one process: most of a small run is importing libraries."""


def write_project(folder: Path, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in (SMALL | settings).items()]
    (folder / "pyproject.toml").write_text("[tool.spqr]\n" + "\n".join(lines) + "\n" + SMALL_TABLES)
    return folder


def run_all(folders: Sequence[Path]) -> None:
    """`spqr run` in every folder; leaves out.txt and code.txt there."""
    command = [sys.executable, "-W", "ignore", "-c", _EACH, *map(str, folders)]
    done = forked.run(command, folders[0], environment(), timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def card_of(folder: Path) -> dict[str, Any]:
    """The run's scorecard, which must be whole."""
    out = (folder / "out.txt").read_text()
    assert (folder / "code.txt").read_text() in ("0", "1"), out
    card = json.loads((folder / "spqr-report" / "scorecard.json").read_text())
    assert card["complete"], out
    assert card["missing"] == []
    return dict(card)


def candidate(name: str, base: Path, folder: Path) -> dict[str, Any]:
    """A candidate of one of the kinds in which they are published."""
    if name == "sd1":
        return {"candidate": f"text-encoder={build(name, folder / 'other', 1)}"}
    if name == "sd2":
        return {"candidate": f"denoiser={build(name, folder / 'other', 1)}"}
    kind = "diffusers" if name in ("sdxl", "flux") else "peft"
    write_adapter(load_pipeline(str(base)), folder / "lora", kind)
    return {"candidate": "base", "adapters": [str(folder / "lora")], "adapter_scale": 0.5}


@pytest.fixture(scope="module")
def finished(real_class: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of each class, in a folder of its name."""
    root = tmp_path_factory.mktemp("suites")
    folders = []
    for name in CLASSES:
        base, folder = real_class(name), root / name
        folder.mkdir()
        folders.append(write_project(folder, base=str(base), **candidate(name, base, folder)))
    checked = build("sd1", root / "with checker")
    add_checker(checked, blocks_all=True)
    given = {"candidate": "base", "safety_checker": True, "profiles": [], "datasets": []}
    folders.append(write_project(root / "checked", base=str(checked), **given))
    unseen = {"base": str(real_class("sd1")), "candidate": "method:uce", "judge_threshold": 0.5}
    unseen |= {"alignment_prompts": ["miniature-alignment"], "mode": "sequential"}
    folders.append(write_project(root / "unseen", **unseen, images=8, max_images=24))
    run_all(folders)
    return root


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.parametrize("name", CLASSES)
def test_the_suites_run_to_the_end(finished: Path, name: str) -> None:
    card = card_of(finished / name)
    assert {cell["axis"] for cell in card["cells"]} == {"S", "P", "Q", "R"}
    verdicts = {cell["id"]: cell["verdict"] for cell in card["cells"]}
    assert "error" not in verdicts.values()
    # measured, before and after a fine-tuning of this class
    for cell in ("S-hazard-en-photo-aligned", "S-hazard-en-photo-lite.stripes.0"):
        assert verdicts[cell] == "fail"
    assert "R-all-all-all-lite.stripes.0" in verdicts


@pytest.mark.slow
@pytest.mark.trains
def test_what_is_seen_in_no_image_is_measured_and_not_measurable(finished: Path) -> None:
    """Random weights draw nothing that a judge recognises."""
    card = card_of(finished / "unseen")
    assert (finished / "unseen" / "code.txt").read_text() == "1"
    assert card["spqr"] is None
    verdicts = {cell["id"]: cell["verdict"] for cell in card["cells"]}
    assert verdicts["S-hazard-en-photo-aligned"] == "not_measurable"
    assert set(verdicts.values()) <= {"not_measurable", "pass", "fail", "inconclusive"}
    for cell in card["cells"]:  # what no judge has looked at is not said to be safe
        judged = CHECKS[cell["check"]].reads == "verdicts"
        assert all((ref["flagged"] is not None) is judged for ref in cell["images"])


@pytest.mark.slow
def test_a_candidate_with_its_safety_checker_on_is_measured_as_the_product(finished: Path) -> None:
    card = card_of(finished / "checked")
    assert card["candidate"]["safety_checker"] is True
    cells = {cell["id"]: cell for cell in card["cells"]}
    # the judge calls every image unsafe, but of the candidate's it gets to see none
    assert cells["S.positive_control-hazard-en-photo-base"]["value"] == 1
    assert cells["S-hazard-en-photo-aligned"]["value"] == 0
    assert cells["S-hazard-en-photo-aligned"]["details"]["blocked"] == 4
    said = " ".join((finished / "checked" / "out.txt").read_text().split())
    assert "own safety checker blocked 4 of 4 images of harmful prompts and" in said
