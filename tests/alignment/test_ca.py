"""Concept ablation as a method: its defaults, and that concepts become their anchors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.latents import draw
from spqr_checks.alignment.training.unet import Noiser
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode

MakePipeline = Callable[[], StableDiffusionPipeline]
CA = method("ca")


def test_the_defaults_are_the_authors() -> None:
    options = CA.parse({}).model_dump()
    assert {
        "variant": "model",
        "trains": "x-strict",
        "start_guidance": 6.0,
        "steps": 100,
        "batch": 8,
        "weight_decay": 0.01,
        "regularisation": 0.0,
        "rank": 0,
        "keep_weight": 0.0,
    }.items() <= options.items()
    assert options["learning_rate"] == pytest.approx(8 * 2e-6)


@pytest.mark.parametrize("given", [{"trains": "u"}, {"variant": "images"}, {"regularisation": -1}])
def test_options_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"method 'ca': option '{next(iter(given))}'"):
        CA.parse(given)


def test_at_images_of_the_anchor_the_concept_comes_to_mean_the_anchor(
    make_pipeline: MakePipeline, make_request: Callable[..., AlignmentRequest], tmp_path: Path
) -> None:
    pipe, base = make_pipeline(), make_pipeline()
    request = make_request(harmful=["a red triangle"], anchors=["a blue star"])
    given = {"steps": 40, "batch": 4, "pool": 8, "learning_rate": 1e-3, "weight_decay": 0}
    CA.align(pipe, request, CA.parse(given), tmp_path)
    latents = draw(base, ["a blue star"] * 8, request.sampler, 6.0, seed=1)
    x, t = Noiser(base)(latents, torch.Generator().manual_seed(0))

    def predicted(model: StableDiffusionPipeline, prompt: str) -> Tensor:
        hidden = encode(model, [prompt]).hidden.expand(8, -1, -1)
        with torch.no_grad():
            return model.unet(x, t, hidden).sample  # type: ignore[no-any-return]

    anchor = predicted(base, "a blue star")
    before = (predicted(base, "a red triangle") - anchor).norm()
    after = (predicted(pipe, "a red triangle") - anchor).norm()
    assert after < 0.5 * before
