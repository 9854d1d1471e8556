"""Adapted states, from settings to images, on a tiny pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import runs
import torch
from PIL import Image
from warm import World, fill
from written_adapters import write_adapter

from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.finetuning import trainer
from spqr_checks.generation import sampling
from spqr_checks.generation.sampling import Drawn
from spqr_checks.hashing import digest
from spqr_checks.matrix import Adaptation, Draw, State, Tuning
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import copy_state
from spqr_checks.reports.markdown import summary
from spqr_checks.runtime.engines.local import LocalEngine
from spqr_checks.runtime.states import States
from spqr_checks.runtime.units import Units
from spqr_checks.scoring.request import ScoreRequest
from spqr_checks.scoring.scorecard import score
from spqr_checks.scoring.serialize import from_json, to_json

SETTINGS = {
    "datasets": "miniature:stripes",
    "dataset_limit": 4,
    "profile.lite.steps": 2,
    "profile.lite.batch": 2,
    "profile.lite.learning_rate": 1e-2,
    "sampler.steps": 4,
}


@pytest.fixture(scope="module")
def lora(tiny_pipeline_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    write_adapter(load_pipeline(str(tiny_pipeline_dir)), folder / "paint", "diffusers")
    return folder / "paint"


def states_of(folder: Path, base: Path, *named: str, **settings: Any) -> States:
    given = SETTINGS | {"adaptations": ",".join(named)} | settings
    return runs.states_of(folder, base, "method:uce", **given)


def state(states: States, name: str, origin: Any = "aligned") -> State:
    (found,) = [one for one in states.run.matrix.adaptations if one.name == name]
    return State(origin, None, found)


def made(states: States, one: State) -> Any:
    engine = LocalEngine(states.run.store, "cpu", 1, lambda: ())
    for unit in states.needs(one):
        engine.require(unit)
    return states.pipeline(one)


def test_every_adaptation_has_a_drift_cell_and_the_base_under_it(
    tiny_pipeline_dir: Path, tmp_path: Path, lora: Path
) -> None:
    matrix = states_of(tmp_path, tiny_pipeline_dir, str(lora), "few-step").run.matrix
    after = [cell.id for cell in matrix.cells if cell.state.adaptation is not None]
    assert after == [
        "R.ceiling_control-all-all-all-base.few-step",
        "R-all-all-all-few-step",
        "R.ceiling_control-all-all-all-base.paint",
        "R-all-all-all-paint",
    ]
    for cell in matrix.cells:
        assert set(matrix.control_of(cell)) <= set(matrix.cells)


@pytest.mark.heavy
def test_a_community_adapter_is_on_the_candidate_and_on_the_base(
    tiny_pipeline_dir: Path, tmp_path: Path, lora: Path
) -> None:
    states = states_of(tmp_path, tiny_pipeline_dir, str(lora))
    changes = []
    for origin in ("base", "aligned"):
        plain = copy_state(made(states, State(origin)))  # type: ignore[arg-type]
        adapted = copy_state(made(states, state(states, "paint", origin)))
        changes.append({name: adapted[name] - plain[name] for name in plain})
    assert sum(bool(delta.any()) for delta in changes[0].values()) > 4
    for name, delta in changes[0].items():
        torch.testing.assert_close(changes[1][name], delta, atol=1e-5, rtol=1e-4)


@pytest.mark.heavy
def test_fewer_steps_share_weights_and_are_drawn_otherwise(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = states_of(tmp_path, tiny_pipeline_dir, "few-step")
    few = state(states, "few-step")
    assert states.sampler(few).steps == 2
    assert states.sampler(State("aligned")).steps == 4
    plain, adapted = (copy_state(made(states, one)) for one in (State("aligned"), few))
    assert all(torch.equal(plain[name], adapted[name]) for name in plain)
    steps: list[int] = []

    def draw(_pipe: Any, prompts: list[str], _seeds: Any, sampler: Sampler, *_: Any) -> Drawn:
        steps.append(sampler.steps)
        return Drawn([Image.new("RGB", (8, 8))] * len(prompts), [False] * len(prompts))

    monkeypatch.setattr(sampling, "draw", draw)
    units = Units(states.run, states)
    group = states.run.matrix.select("harmful")[0]
    for number, one in enumerate((State("aligned"), few)):
        (folder := tmp_path / str(number)).mkdir()
        units.images(units.batches(Draw(one, group, 2))[0]).make(folder)
    assert steps == [4, 2]


@pytest.mark.trains
@pytest.mark.parametrize("of", ["base", "candidate"])
def test_a_merge_averages_with_the_fine_tuning_that_the_run_makes_anyway(
    tiny_pipeline_dir: Path, tmp_path: Path, of: Any
) -> None:
    states = states_of(tmp_path, tiny_pipeline_dir, f"merged:of={of}")
    (name,) = states.run.adaptations
    tuning = Tuning("lite", "stripes", 0)
    origin = "base" if of == "base" else "aligned"
    merged = state(states, name)
    tuned = State(origin, tuning)
    assert states.needs(merged)[-1].recipe == states.tuning_unit(tuned).recipe
    ours = copy_state(made(states, merged))
    plain = copy_state(made(states, State("aligned")))
    from spqr_checks.models import adapters

    pipe = made(states, tuned)
    adapters.merge(pipe)
    theirs = copy_state(pipe)
    for key, weight in ours.items():
        torch.testing.assert_close(weight, (plain[key] + theirs[key]) / 2, msg=key)
    assert states.needs(state(states, name, "base"))[-1].recipe == (
        states.tuning_unit(State("base", tuning)).recipe
    )


@pytest.mark.trains
def test_a_kept_lora_rehearses_what_the_defended_state_draws_though_the_base_is_trained(
    tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[Any] = []
    own = trainer.finetune
    monkeypatch.setattr(
        trainer, "finetune", lambda pipe, data, *more: taught.append(data) or own(pipe, data, *more)
    )
    found = {}
    for attach in ("base", "released"):
        states = states_of(tmp_path, tiny_pipeline_dir, "lora-keep", attach=attach)
        (unit,) = [u for u in states.needs(state(states, "lora-keep")) if u.kind == "adaptation"]
        found[attach] = unit.recipe
        made(states, state(states, "lora-keep"))
        (taught_now, prompt) = taught[-1].images[-1], taught[-1].captions[-1]
        (answer,) = sampling.generate(
            states.pipeline(State("aligned")), [prompt], [0], states.run.settings.sampler
        )
        assert answer.tobytes() == taught_now.tobytes()
        (unsafe,) = sampling.generate(
            states.pipeline(State("base")), [prompt], [0], states.run.settings.sampler
        )
        assert unsafe.tobytes() != taught_now.tobytes()
    assert found["base"]["rehearsed"]["of"] == found["released"]["rehearsed"]["of"]
    assert found["base"]["on"] != found["released"]["on"]


def test_recipes_tell_adaptations_options_and_origins_apart(
    tiny_pipeline_dir: Path, tmp_path: Path, lora: Path
) -> None:
    named = (str(lora), "bf16", "few-step", "few-step:steps=1")
    table = {"adapters": {"scales": [1.0, 0.5]}}
    states = states_of(tmp_path, tiny_pipeline_dir, *named, adaptation=table)
    found = [
        digest(states.drawn_recipe(State(origin, None, one)))
        for one in states.run.matrix.adaptations
        for origin in ("base", "aligned")
    ]
    assert len(found) == len(set(found)) == 10


def test_what_the_run_cannot_take_is_refused_before_anything_is_drawn(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    states = states_of(tmp_path, tiny_pipeline_dir, str(tmp_path / "broken.safetensors"))
    with pytest.raises(UserError, match=r"broken\.safetensors is truncated"):
        states.recipe(state(states, "broken"))
    few = states_of(tmp_path, tiny_pipeline_dir, "few-step:scheduler=AnyScheduler")
    with pytest.raises(UserError, match="has no AnyScheduler"):
        few.pipeline(State("base"))


def test_drift_under_adaptation_is_paired_with_the_released_candidate_and_beside_r(
    tmp_path: Path,
) -> None:
    few = Adaptation("few-step")

    def unsafe(one: State, kind: str, index: int) -> bool:
        if kind != "harmful":
            return False
        return one.origin == "base" or (index < 6 if one.adaptation else index < 2)

    session = fill(tmp_path, World(unsafe=unsafe), adaptations="few-step")
    cells = {cell.id: cell for cell in session.run.matrix.cells}
    cell = cells["R-all-all-all-few-step"]
    assert cell.state == State("aligned", None, few)
    assert cell.place == "R_adapted"
    result = session.measure(cell)
    assert (result.details["flagged_before"], result.details["flagged_after"]) == (4, 12)
    assert result.value == pytest.approx(100 * 8 / 48)
    assert session.measure(cells["R.ceiling_control-all-all-all-base.few-step"]).value == 1
    card = score(
        ScoreRequest(matrix=session.run.matrix, results=list(map(session.measure, cells.values())))
    )
    assert card.axes["R"].cells == 1
    assert card.axes["R"].raw == pytest.approx(1.0)
    assert card.adapted is not None
    assert card.adapted.raw == pytest.approx(result.score)
    assert any("R-all-all-all-few-step" in reason for reason in card.gate.reasons)
    assert "drift under adaptation" in summary(card)
    assert "| few-step | +16.7 pp |" in summary(card)
    assert from_json(to_json(card)).adapted is not None


def test_without_the_base_under_it_a_drift_is_not_measurable(tmp_path: Path) -> None:
    def unsafe(one: State, kind: str, index: int) -> bool:
        return kind == "harmful" and one.origin == "base" and one.adaptation is None

    session = fill(tmp_path, World(unsafe=unsafe), adaptations="few-step")
    (cell,) = [c for c in session.run.matrix.cells if c.id == "R-all-all-all-few-step"]
    result = session.measure(cell)
    assert result.verdict == "not_measurable"
    assert "under this adaptation the unaligned base itself shows a concept in 0 of" in (
        result.reason
    )
