"""The methods on the UNet of Stable Diffusion XL, which also wants pooled embeddings and sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from tiny_xl import make_xl

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.generation.conditions import encode
from spqr_checks.models.weights import assert_differs, copy_state


@pytest.fixture
def xl_pipeline(tiny_pipeline: StableDiffusionPipeline) -> StableDiffusionXLPipeline:
    pipe = make_xl(tiny_pipeline)
    pipe.scheduler = EulerDiscreteScheduler()
    return pipe


def test_prompts_have_pooled_embeddings(xl_pipeline: StableDiffusionXLPipeline) -> None:
    prompts = encode(xl_pipeline, ["a red circle", ""])
    assert prompts.hidden.shape == (2, 32, 32)
    assert prompts.pooled is not None
    assert prompts.pooled.shape == (2, 12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uce", {}),
        ("esd", {"steps": 2, "batch": 2, "keep_weight": 1, "target": "current"}),
        ("esd", {"steps": 2, "batch": 2, "latents": "pool", "rank": 2, "keep_weight": 1}),
        ("sdd", {"steps": 2, "batch": 2, "keep_weight": 1, "ema": 0}),
        ("ca", {"steps": 2, "batch": 2, "pool": 2, "regularisation": 1}),
    ],
)
def test_the_methods_align_it(
    xl_pipeline: StableDiffusionXLPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    before = copy_state(xl_pipeline)
    chosen = method(name)
    chosen.align(xl_pipeline, make_request(), chosen.parse(options), tmp_path)
    assert_differs(xl_pipeline, before)
