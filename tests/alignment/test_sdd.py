"""SDD as a method: its defaults, the average that it saves, decay and clipping."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode
from spqr_checks.models.weights import copy_state

MakePipeline = Callable[[], StableDiffusionPipeline]
SDD = method("sdd")
LAYER = "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight"


@pytest.fixture
def align(
    make_pipeline: MakePipeline, make_request: Callable[..., AlignmentRequest], tmp_path: Path
) -> Callable[..., StableDiffusionPipeline]:
    """Aligns a fresh pipeline in a few quick steps and returns it."""

    def run(**options: Any) -> StableDiffusionPipeline:
        pipe = make_pipeline()
        quick = {"steps": 1, "batch": 2, "learning_rate": 1e-2, "latents": "pool", "pool": 4}
        SDD.align(pipe, make_request(), SDD.parse(quick | options), tmp_path)
        return pipe

    return run


Align = Callable[..., StableDiffusionPipeline]


def test_the_defaults_are_the_authors() -> None:
    options = SDD.parse({}).model_dump()
    assert {
        "concept": "joined",
        "latents": "teacher",
        "trains": "x",
        "start_guidance": 3.0,
        "steps": 1500,
        "batch": 1,
        "learning_rate": 1e-5,
        "weight_decay": 1e-4,
        "clip": 1.0,
        "ema": 0.999,
        "rank": 0,
        "keep_weight": 0.0,
    }.items() <= options.items()


@pytest.mark.parametrize("given", [{"ema": 1.0}, {"clip": 0}, {"latents": "student"}])
def test_options_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"method 'sdd': option '{next(iter(given))}'"):
        SDD.parse(given)


def test_the_average_moves_by_its_share_of_the_student_s_step(
    make_pipeline: MakePipeline, align: Align
) -> None:
    start = copy_state(make_pipeline())[LAYER]
    student, teacher = (copy_state(align(ema=ema))[LAYER] - start for ema in (0.0, 0.9))
    assert student.abs().max() > 1e-3
    torch.testing.assert_close(teacher, 0.1 * student, atol=1e-6, rtol=1e-3)


def test_weights_decay(make_pipeline: MakePipeline, align: Align) -> None:
    start = copy_state(make_pipeline())[LAYER]
    plain, decayed = (copy_state(align(ema=0, weight_decay=decay))[LAYER] for decay in (0.0, 0.5))
    # AdamW shrinks what was there before the step; the step itself is Adam's
    torch.testing.assert_close(decayed, plain - 1e-2 * 0.5 * start)


def test_at_the_concepts_the_model_comes_to_predict_what_it_predicts_without_a_prompt(
    make_pipeline: MakePipeline, align: Align
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(8, 4, 8, 8, generator=generator), torch.arange(100, 900, 100)

    def distance(pipe: StableDiffusionPipeline) -> float:
        empty, concept = encode(pipe, ["", "red triangle"]).hidden
        with torch.no_grad():
            predicted = [
                pipe.unet(x, t, hidden.expand(8, -1, -1)).sample for hidden in (empty, concept)
            ]
        return float((predicted[0] - predicted[1]).norm())

    aligned = align(steps=40, ema=0.5, batch=4)
    assert distance(aligned) < 0.4 * distance(make_pipeline())
