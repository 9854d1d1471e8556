"""The methods on the UNet of Stable Diffusion XL, which also wants pooled embeddings and sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from spqr_checks.alignment.parts.embeddings import encode
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.models.weights import assert_differs, copy_state


@pytest.fixture
def xl_pipeline(tiny_pipeline: StableDiffusionPipeline) -> StableDiffusionXLPipeline:
    config: CLIPTextConfig = tiny_pipeline.text_encoder.config
    config.projection_dim = 12
    torch.manual_seed(0)
    return StableDiffusionXLPipeline(
        vae=tiny_pipeline.vae,
        text_encoder=CLIPTextModel(config).eval(),
        text_encoder_2=CLIPTextModelWithProjection(config).eval(),
        tokenizer=tiny_pipeline.tokenizer,
        tokenizer_2=tiny_pipeline.tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=2,
            norm_num_groups=4,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + 12,
        ).eval(),
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )


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
