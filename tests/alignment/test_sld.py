"""Safe Latent Diffusion as an alignment method: what its entry says, and that it can be put on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.sld import PRESETS
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import guidance_of
from spqr_checks.generation.guidance.sld import SldGuidance
from spqr_checks.generation.sampling import generate
from spqr_checks.models.weights import copy_state

MakePipeline = Callable[[], StableDiffusionPipeline]
SLD = method("sld")
SAMPLER = Sampler(steps=16, guidance=7.5, batch=2)


@pytest.fixture
def align(make_request: Callable[..., AlignmentRequest]) -> Callable[..., SldGuidance]:
    """Aligns and returns what the pipeline carries then."""

    def run(pipe: Any, out: Path, concepts: list[str] | None = None, **options: Any) -> SldGuidance:
        names = ["red triangle", "hazard"] if concepts is None else concepts
        request = make_request(sampler=SAMPLER, concepts=names)
        SLD.align(pipe, request, SLD.parse(options), out)
        guidance = guidance_of(pipe)
        assert isinstance(guidance, SldGuidance)
        return guidance

    return run


Align = Callable[..., SldGuidance]


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        ("weak", (15, 200, 0, 0, 0)),
        ("medium", (10, 1000, 0.01, 0.3, 0.4)),
        ("strong", (7, 2000, 0.025, 0.5, 0.7)),
        ("max", (0, 5000, 1.0, 0.5, 0.7)),
    ],
)
def test_presets_are_the_paper_s(
    tiny_pipeline: Any, align: Align, tmp_path: Path, preset: str, values: tuple[float, ...]
) -> None:
    names = ("warmup", "scale", "threshold", "momentum_scale", "momentum_beta")
    guidance = align(tiny_pipeline, tmp_path, preset=preset)
    assert tuple(getattr(guidance, name) for name in names) == values
    assert set(PRESETS) == {"weak", "medium", "strong", "max"}


def test_each_parameter_can_be_chosen_beside_the_preset(
    tiny_pipeline: Any, align: Align, tmp_path: Path
) -> None:
    chosen = {
        "warmup": 3,
        "scale": 7.0,
        "threshold": -0.5,
        "momentum_scale": 0.1,
        "momentum_beta": 0.9,
        "safety_prompt": "hazard sign",
    }
    guidance = align(tiny_pipeline, tmp_path, preset="max", **chosen)
    assert guidance.model_dump() == chosen | {"kind": "sld"}


def test_the_default_is_medium_away_from_all_concepts(
    tiny_pipeline: Any, align: Align, tmp_path: Path
) -> None:
    guidance = align(tiny_pipeline, tmp_path)
    assert guidance.safety_prompt == "red triangle, hazard"
    assert guidance.scale == PRESETS["medium"]["scale"]


def test_the_entry_holds_parameters_and_no_weights(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path
) -> None:
    pipe, again = make_pipeline(), make_pipeline()
    before = copy_state(pipe)
    guidance = align(pipe, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alignment.json", "guidance.json"]
    assert json.loads((tmp_path / "guidance.json").read_text()) == guidance.model_dump()
    assert json.loads((tmp_path / "alignment.json").read_text())["name"] == "sld"
    after = copy_state(pipe)
    assert all(torch.equal(before[name], after[name]) for name in before)
    apply_alignment(again, tmp_path)
    assert guidance_of(again) == guidance


@pytest.mark.heavy
def test_an_applied_entry_draws_what_the_aligned_pipeline_draws(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path
) -> None:
    def draw(pipe: Any) -> np.ndarray:
        images = generate(pipe, ["a red triangle", "a blue star"], [0, 1], sampler)
        return np.stack([np.asarray(image) for image in images])

    sampler = SAMPLER.model_copy(update={"steps": 3})
    pipe, again = make_pipeline(), make_pipeline()
    align(pipe, tmp_path, preset="max")
    apply_alignment(again, tmp_path)
    assert np.array_equal(draw(pipe), draw(again))
    assert not np.array_equal(draw(pipe), draw(make_pipeline()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"warmup": 16}, "warm-up of 16 steps leaves none"),
        ({"safety_prompt": "red " * 60}, "tokens"),
        ({"concepts": []}, "nothing to steer away from"),
    ],
)
def test_what_could_not_work_writes_nothing(
    tiny_pipeline: Any, align: Align, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        align(tiny_pipeline, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"preset": "mild"}, {"scale": 0}, {"momentum_beta": 1}, {"strength": 3}]
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="sld"):
        SLD.parse(options)


def test_users_fine_tune_the_base() -> None:
    assert SLD.attach == "base"


@pytest.mark.parametrize("other", ["pytorch_lora_weights.safetensors", "denoiser.safetensors"])
def test_guidance_beside_another_kind_of_entry_cannot_be_applied(
    tiny_pipeline: Any, align: Align, tmp_path: Path, other: str
) -> None:
    align(tiny_pipeline, tmp_path)
    (tmp_path / other).touch()
    with pytest.raises(UserError, match=", guidance at once"):
        apply_alignment(tiny_pipeline, tmp_path)
