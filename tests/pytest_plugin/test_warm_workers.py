"""What a worker loads and reads in a run that finds everything in its store: each pays for it."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import pytest
from warm import card, fill, run

NOTING = """
import json
import sys
from pathlib import Path

from spqr_checks.store import manifest

cells = []

def pytest_collection_finish(session):
    cells.extend(item.callspec.params["spqr_cell"].id for item in session.items)

def pytest_unconfigure(config):
    if hasattr(config, "workerinput"):
        noted = {"loaded": list(sys.modules), "read": list(manifest._verified), "cells": cells}
        Path(config.workerinput["workerid"] + ".noted").write_text(json.dumps(noted))
"""
LIBRARIES = {"torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"}
LIBRARIES |= {"huggingface_hub", "scipy.stats", "rich", "jinja2", "pandas", "hypothesis"}
"""Of these nothing is asked that a worker of such a run does."""
CONTROLLERS = {"spqr_checks.preflight", "spqr_checks.estimate", "spqr_checks.reports.run_page"}
CONTROLLERS |= {"spqr_checks.reports.markdown", "spqr_checks.reports.json_file"}
"""What was looked at before the workers started, and what is made of their results."""


SETTINGS = {"concepts": "hazard,red triangle,bolt,target", "languages": "en,es"}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose store holds all that a run reads."""
    folder = tmp_path_factory.mktemp("warm")
    fill(folder, **SETTINGS)
    return folder


@pytest.fixture(scope="module")
def notes(warm: Path) -> list[dict[str, list[str]]]:
    """What each of two workers loaded, which entries it hashed, and its list of cells."""
    (warm / "noting.py").write_text(NOTING)
    done = run(warm, "-n2", "-p", "noting", variables={"PYTHONPATH": str(warm)}, **SETTINGS)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(note.read_text()) for note in warm.glob("gw*.noted")]
    assert len(found) == 2
    return found


@pytest.mark.slow
def test_a_worker_loads_neither_what_computes_nor_what_its_controller_does(
    notes: list[dict[str, list[str]]],
) -> None:
    for note in notes:
        assert "spqr_checks.checks.session" in note["loaded"], "it measured"
        assert not (LIBRARIES | CONTROLLERS) & {*note["loaded"]}


@pytest.mark.slow
def test_images_of_harmful_prompts_are_hashed_by_who_reports_them(
    warm: Path, notes: list[dict[str, list[str]]]
) -> None:
    shown = {
        str(warm / ".spqr" / image["path"].rpartition("/")[0])
        for cell in card(warm)["cells"]
        if cell["concept"] != "all"
        for image in cell["images"]
    }
    first, second = (shown & {*note["read"]} for note in notes)
    assert first | second == shown
    assert first
    assert second
    assert not first & second


@pytest.mark.slow
def test_cells_of_a_prompt_group_are_neighbours_among_workers_and_of_a_state_without(
    warm: Path, notes: list[dict[str, list[str]]]
) -> None:
    known = {cell["id"]: cell for cell in card(warm)["cells"]}
    places = [
        tuple(known[name][part] for part in ("concept", "language", "domain"))
        for name in notes[0]["cells"]
    ]
    assert len(places) == len(known)
    assert len([*groupby(places)]) == len({*places})
    assert places[-1] == ("all", "all", "all"), "it reads all images"
    listed = run(warm, "--collect-only", **SETTINGS).stdout.splitlines()
    ids = [line.partition("[")[2].rstrip("]") for line in listed if "[" in line]
    states = [known[name]["state"] for name in ids]
    assert len(states) == len(known)
    assert len([*groupby(states)]) == len({*states})
