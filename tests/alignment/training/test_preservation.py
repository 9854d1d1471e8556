"""Batches of prompts to keep, and the loss that holds the student at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.esd import Erasure, EsdOptions
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.distillation import Distillation
from spqr_checks.alignment.training.preservation import Keep, prompts_to_keep
from spqr_checks.generation.conditions import encode

MakeRequest = Callable[..., AlignmentRequest]


@pytest.fixture
def training(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest
) -> Callable[..., Erasure]:
    """A training that keeps prompts; options may be given, and lists of the request."""

    def make(lists: dict[str, list[str]] | None = None, **given: Any) -> Erasure:
        options = EsdOptions.model_validate(
            {"latents": "pool", "batch": 4, "keep_weight": 1.0} | given
        )
        return Erasure(tiny_pipeline, make_request(**(lists or {})), options)

    return make


def keep_of(training: Distillation[Any]) -> Keep:
    assert training.keep is not None
    return training.keep


def test_look_alikes_come_first_and_nothing_comes_twice(make_request: MakeRequest) -> None:
    request = make_request(keep=["a", "b", "c"], lookalikes=["b", "d", "b"])
    assert prompts_to_keep(request) == (["b", "d", "a", "c"], 2)


@pytest.mark.parametrize(("keep", "weight"), [([], 1.0), (["a green circle"], 0.0)])
def test_without_prompts_or_weight_nothing_is_kept(
    training: Callable[..., Erasure], keep: list[str], weight: float
) -> None:
    assert training({"keep": keep}, keep_weight=weight).keep is None


def test_at_the_start_there_is_nothing_to_preserve(training: Callable[..., Erasure]) -> None:
    erasure = training(keep_weight=100.0)
    keep, x, t = keep_of(erasure).batch()
    with torch.no_grad():
        same = F.mse_loss(
            erasure.predictor(erasure.student, x, t, keep),
            erasure.predictor(erasure.frozen, x, t, keep),
        )
        for parameter in erasure.student.parameters():
            parameter.add_(0.1)
        moved = erasure.loss()
        erasure.options = erasure.options.model_copy(update={"keep_weight": 200.0})
        heavier = erasure.loss()
    assert same == 0
    assert heavier > moved * 1.2


def test_prompts_to_keep_are_sometimes_the_empty_prompt(training: Callable[..., Erasure]) -> None:
    def empty_share(share: float) -> float:
        erasure = training(keep_batch=200, keep_unconditional=share)
        keep, _, _ = keep_of(erasure).batch()
        same = (keep.hidden == erasure.unconditional.hidden).flatten(1).all(1)
        return float(same.float().mean())

    assert empty_share(0.0) == 0
    assert empty_share(1.0) == 1
    assert 0.15 < empty_share(0.3) < 0.45


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_look_alikes_get_their_share_of_the_prompts_to_keep(
    tiny_pipeline: StableDiffusionPipeline, training: Callable[..., Erasure], share: float
) -> None:
    near = "a red square"
    keep = [f"a circle {i}" for i in range(9)] + [near]
    erasure = training(
        {"keep": keep, "lookalikes": [near]},
        keep_batch=400,
        lookalike_share=share,
        keep_unconditional=0,
    )
    drawn, _, _ = keep_of(erasure).batch()
    target = encode(tiny_pipeline, [near]).hidden
    found = torch.isclose(drawn.hidden, target, atol=1e-5).flatten(1).all(1).float().mean()
    assert found.item() == pytest.approx(share, abs=0.08)
