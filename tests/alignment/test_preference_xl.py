"""The preference methods on the UNet of Stable Diffusion XL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from diffusers import StableDiffusionXLPipeline
from test_stable_diffusion_xl import xl_pipeline  # noqa: F401

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.models.weights import assert_differs, copy_state


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["alignguard", "duo", "sc-dpo"])
def test_the_methods_align_it(
    xl_pipeline: StableDiffusionXLPipeline,  # noqa: F811
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    name: str,
) -> None:
    before = copy_state(xl_pipeline)
    request = make_request(
        anchors=["a blue triangle", "a red circle"], categories=["one", "another"]
    )
    chosen = method(name)
    options = chosen.parse({"steps": 2, "batch": 2, "keep_weight": 1, "learning_rate": 1e-2})
    chosen.align(xl_pipeline, request, options, tmp_path)
    assert_differs(xl_pipeline, before)
    assert (tmp_path / "pytorch_lora_weights.safetensors").exists()
