"""The safe latent blend as an alignment method."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import guidance_of
from spqr_checks.generation.guidance.safe_latent_blend import SafeLatentBlendGuidance
from spqr_checks.generation.sampling import generate

MakePipeline = Callable[[], StableDiffusionPipeline]
BLEND = method("safe-latent-blend")
SAMPLER = Sampler(steps=3, guidance=7.5, batch=2)


@pytest.fixture
def align(make_request: Callable[..., AlignmentRequest]) -> Callable[..., SafeLatentBlendGuidance]:
    """Aligns and returns what the pipeline carries then."""

    def run(
        pipe: Any, out: Path, request: dict[str, Any] | None = None, **options: Any
    ) -> SafeLatentBlendGuidance:
        asked = make_request(**({"sampler": SAMPLER} | (request or {})))
        BLEND.align(pipe, asked, BLEND.parse(options), out)
        guidance = guidance_of(pipe)
        assert isinstance(guidance, SafeLatentBlendGuidance)
        return guidance

    return run


Align = Callable[..., SafeLatentBlendGuidance]


def draw(pipe: Any) -> np.ndarray:
    images = generate(pipe, ["a red triangle", "a blue star"], [0, 1], SAMPLER)
    return np.stack([np.asarray(image) for image in images])


def test_the_entry_holds_parameters_and_prompts_and_no_weights(
    make_pipeline: MakePipeline,
    make_request: Callable[..., AlignmentRequest],
    align: Align,
    tmp_path: Path,
) -> None:
    pipe, again = make_pipeline(), make_pipeline()
    guidance = align(pipe, tmp_path, weight=0.9, tau=0.1, rank=3, threshold=0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alignment.json", "guidance.json"]
    request = make_request()
    assert json.loads((tmp_path / "guidance.json").read_text()) == {
        "kind": "safe-latent-blend",
        "weight": 0.9,
        "tau": 0.1,
        "rank": 3,
        "threshold": 0.2,
        "harmful": request.harmful,
        "anchors": request.anchors,
    }
    apply_alignment(again, tmp_path)
    assert guidance_of(again) == guidance


@pytest.mark.heavy
def test_an_applied_entry_draws_what_the_aligned_pipeline_draws(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path
) -> None:
    pipe, again = make_pipeline(), make_pipeline()
    align(pipe, tmp_path, weight=1, tau=0)
    apply_alignment(again, tmp_path)
    assert np.array_equal(draw(pipe), draw(again))
    assert not np.array_equal(draw(pipe), draw(make_pipeline()))


def test_by_default_every_prompt_is_blended_once_the_image_is_laid_out(
    tiny_pipeline: Any, align: Align, tmp_path: Path
) -> None:
    guidance = align(tiny_pipeline, tmp_path)
    assert guidance.threshold is None
    assert guidance.first(50) == 10
    assert guidance.weight == 0.5


@pytest.mark.parametrize(
    ("request_changes", "options", "said"),
    [
        ({}, {"tau": 0.9}, "tau 0.9 leaves none of the sampler's 3 steps"),
        ({"harmful": ["a red star"], "anchors": ["a red star"]}, {}, "give anchors that differ"),
    ],
)
def test_what_could_not_work_writes_nothing(
    tiny_pipeline: Any,
    align: Align,
    tmp_path: Path,
    request_changes: dict[str, Any],
    options: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(UserError, match=said):
        align(tiny_pipeline, tmp_path, request_changes, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"weight": 0}, {"weight": 1.1}, {"tau": 1}, {"rank": 0}, {"threshold": 1}, {"w": 1}]
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="safe-latent-blend"):
        BLEND.parse(options)


def test_users_fine_tune_the_base() -> None:
    assert BLEND.attach == "base"
