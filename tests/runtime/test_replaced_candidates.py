"""Candidates given as parts of a pipeline, with adapters or offload: states and their recipes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from real_classes import build
from runs import run_of, states_of
from safetensors.torch import load_file, save_file
from written_adapters import write_adapter

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.errors import UserError
from spqr_checks.matrix import ALIGNED, BASE, State, Tuning
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import networks
from spqr_checks.preflight import preflight

pytestmark = pytest.mark.usefixtures("one_thread")
TUNED = State("aligned", Tuning("lite", "pastel", 0))


@pytest.fixture
def base(real_class: Callable[[str], Path]) -> Path:
    return real_class("sd1")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of the same class with other weights; read only."""
    return build("sd1", tmp_path_factory.mktemp("other") / "sd1", seed=1)


def differing(one: Any, two: Any) -> set[str]:
    return {
        name
        for name, part in networks(one).items()
        for key, tensor in part.state_dict().items()
        if not torch.equal(tensor, networks(two)[name].state_dict()[key])
    }


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("spec", "changed"), [("denoiser", {"unet"}), ("text-encoder", {"text_encoder"})]
)
def test_the_candidate_is_the_base_with_one_network_replaced(
    base: Path, other: Path, tmp_path: Path, spec: str, changed: set[str]
) -> None:
    states = states_of(tmp_path, base, f"{spec}={other}")
    assert states.needs(ALIGNED) == ()
    assert states.attaches_to(TUNED) == ALIGNED
    assert states.notes == []
    assert differing(states.pipeline(ALIGNED), load_pipeline(str(base))) == changed
    assert states.recipe(ALIGNED) != states.recipe(BASE)
    assert states.recipe(ALIGNED) != states_of(tmp_path, base, f"{spec}={base}").recipe(ALIGNED)


@pytest.mark.parametrize("spec", ["denoiser={}", "text-encoder={}", "{}"])
def test_weights_that_are_the_base_s_own_are_refused(base: Path, tmp_path: Path, spec: str) -> None:
    copy = shutil.copytree(base, tmp_path / "copy")
    # other bytes, the same weights
    config = copy / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()), indent=5))
    with pytest.raises(UserError, match="identical to its base"):
        states_of(tmp_path, base, spec.format(copy)).pipeline(ALIGNED)


@pytest.mark.heavy
def test_an_adapter_of_the_text_encoder_alone_counts_as_a_difference(
    base: Path, other: Path, tmp_path: Path
) -> None:
    """With the adapter on top, the denoiser is the base's and the text encoder is not."""
    pipe = load_pipeline(str(base))
    write_adapter(pipe, tmp_path / "lora", "peft")
    states = states_of(tmp_path, base, f"text-encoder={other}", adapters=str(tmp_path / "lora"))
    assert differing(states.pipeline(ALIGNED), load_pipeline(str(base))) == {"unet", "text_encoder"}
    assert {"replaced", "adapters", "adapter_scale"} <= states.recipe(ALIGNED).keys()


def test_a_candidate_that_does_not_fit_is_refused_before_its_base_is_put_together(
    base: Path, other: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(other, tmp_path / "candidate")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 7}))
    for spec in (str(folder), f"denoiser={folder}"):
        with pytest.raises(UserError, match=str(folder / "unet")):
            states_of(tmp_path, base, spec).pipeline(BASE)


@pytest.mark.heavy
def test_the_alpha_of_a_lora_file_is_asked_for_before_the_run_and_is_part_of_the_recipe(
    base: Path, tmp_path: Path
) -> None:
    write_adapter(load_pipeline(str(base)), tmp_path / "lora", "diffusers")
    (path,) = (tmp_path / "lora").glob("*.safetensors")
    save_file(load_file(path), path)
    with pytest.raises(UserError, match="--spqr-adapter-alpha N, or rank"):
        states_of(tmp_path, base, "base", adapters=str(path)).recipe(ALIGNED)
    given = {
        alpha: states_of(tmp_path, base, "base", adapters=str(path), adapter_alpha=alpha)
        for alpha in ("rank", "6")
    }
    assert given["6"].recipe(ALIGNED)["adapter_alpha"] == "6"
    assert differing(*(states.pipeline(ALIGNED) for states in given.values())) == {"unet"}


@pytest.mark.heavy
def test_an_adapter_that_adds_nothing_is_refused(base: Path, tmp_path: Path) -> None:
    write_adapter(load_pipeline(str(base)), tmp_path / "lora", "peft", strength=0.0)
    with pytest.raises(UserError, match="identical to its base"):
        states_of(tmp_path, base, "base", adapters=str(tmp_path / "lora")).pipeline(ALIGNED)


def test_a_spec_of_something_that_is_not_there_ends_before_the_run(
    base: Path, tmp_path: Path
) -> None:
    for candidate in ("denoiser=/nowhere", f"text-encoder={tmp_path}"):
        with pytest.raises(UserError, match=r"/nowhere|no safetensors weights"):
            preflight(run_of(tmp_path, base, candidate).settings)


def test_another_scheduler_of_the_candidate_is_noted_for_the_scorecard(
    base: Path, other: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(other, tmp_path / "copy")
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"steps_offset": 0}))
    described = MeasuringSession(run_of(tmp_path, base, copy)).describe()["candidate"]
    assert described["notes"] == [
        "the candidate's scheduler is not the base's: steps_offset 0 (base: 1)"
    ]
    described = MeasuringSession(run_of(tmp_path, base, other)).describe()["candidate"]
    assert "notes" not in described
    assert "safety_checker" not in described


def test_offload_decides_what_is_drawn_but_no_training(
    base: Path, other: Path, tmp_path: Path
) -> None:
    plain = states_of(tmp_path, base, other)
    offloaded = states_of(tmp_path, base, other, device="cuda", offload="model")
    on_device = states_of(tmp_path, base, other, device="cuda")
    assert offloaded.drawn_recipe(BASE) != on_device.drawn_recipe(BASE)
    assert offloaded.recipe(BASE) == on_device.recipe(BASE)
    assert offloaded.tuning_unit(TUNED).recipe == on_device.tuning_unit(TUNED).recipe
    assert plain.drawn_recipe(BASE) == plain.recipe(BASE)


def test_an_offloaded_pipeline_is_put_together_in_main_memory(
    base: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    def place(pipe: Any, device: str, offload: str = "none") -> None:
        asked.append((pipe.device.type, device, offload))

    monkeypatch.setattr("spqr_checks.models.pipelines.place", place)
    states = states_of(tmp_path, base, other, device="cuda:0", offload="sequential")
    states.pipeline(ALIGNED)
    assert asked.pop() == ("cpu", "cuda:0", "sequential")
    assert set(asked) <= {("cpu", "cpu", "none")}
