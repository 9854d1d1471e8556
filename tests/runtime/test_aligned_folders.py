"""Candidates that are folders of `spqr align`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import states_of

from spqr_checks.alignment.registry import method
from spqr_checks.errors import UserError
from spqr_checks.matrix import ALIGNED, BASE, State, Tuning
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import copy_state
from spqr_checks.runtime.requests import alignment_request
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings

TUNED = State("aligned", Tuning("lite", "pastel", 0))


@pytest.fixture
def aligned(tiny_pipeline_dir: Path, tmp_path: Path) -> Path:
    """The tiny pipeline's UCE alignment."""
    given = {"preset": "miniature", "base": str(tiny_pipeline_dir), "candidate": "method:uce"}
    run = Run.from_settings(load_settings(tmp_path, given))
    out = tmp_path / "aligned"
    out.mkdir()
    uce = method("uce")
    request = alignment_request(run.settings, run.alignment_prompts)
    uce.align(load_pipeline(str(tiny_pipeline_dir)), request, uce.parse({}), out)
    return out


@pytest.mark.heavy
def test_the_folder_is_put_on_the_base(
    aligned: Path, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    states = states_of(tmp_path, tiny_pipeline_dir, aligned)
    assert states.needs(ALIGNED) == ()
    base, edited = (copy_state(states.pipeline(state)) for state in (BASE, ALIGNED))
    changed = {name for name in base if not base[name].equal(edited[name])}
    assert changed
    assert all(name.split(".")[-2] in ("to_k", "to_v") for name in changed)


@pytest.mark.heavy
def test_every_byte_of_the_folder_decides_the_state(
    aligned: Path, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    def recipe() -> dict[str, Any]:
        return states_of(tmp_path, tiny_pipeline_dir, aligned).recipe(ALIGNED)

    before = recipe()
    assert recipe() == before
    record = aligned / "alignment.json"
    record.write_text(record.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert recipe() != before


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "start"), [("uce", ALIGNED), ("modular-lora", BASE)])
def test_fine_tuning_attaches_as_the_recorded_method_says(
    aligned: Path, tiny_pipeline_dir: Path, tmp_path: Path, name: str, start: State
) -> None:
    path = aligned / "alignment.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | {"name": name}), encoding="utf-8")
    assert states_of(tmp_path, tiny_pipeline_dir, aligned).attaches_to(TUNED) == start


@pytest.mark.heavy
def test_adapters_on_top_and_a_broken_record_are_refused(
    aligned: Path, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="takes no adapters"):
        states_of(tmp_path, tiny_pipeline_dir, aligned, adapters="a.safetensors").recipe(ALIGNED)
    (aligned / "alignment.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="not the record of an alignment"):
        states_of(tmp_path, tiny_pipeline_dir, aligned).attaches_to(TUNED)
