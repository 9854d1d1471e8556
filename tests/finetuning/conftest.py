"""A few images to learn from, what was learned from them, and a second kind of pipeline."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from tunings import KINDS, Snapshot, Tuned, profile

from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.datasets import load_images
from spqr_checks.finetuning.trainer import finetune


@pytest.fixture(scope="session")
def scenes() -> CaptionedImages:
    """Six captioned images."""
    return load_images("miniature:stripes:6")


@pytest.fixture(scope="session")
def base(tiny_pipeline_dir: Path) -> StableDiffusionPipeline:
    """A tiny pipeline that nobody changes."""
    pipe = StableDiffusionPipeline.from_pretrained(tiny_pipeline_dir)
    assert isinstance(pipe, StableDiffusionPipeline)
    return pipe


@pytest.fixture
def pipe(base: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A copy of the base, to be changed."""
    return copy.deepcopy(base)


@pytest.fixture(scope="session", params=KINDS)
def tuned(
    request: pytest.FixtureRequest,
    base: StableDiffusionPipeline,
    scenes: CaptionedImages,
    tmp_path_factory: pytest.TempPathFactory,
) -> Tuned:
    """The base, fine-tuned with seed 3 in each of the ways."""
    folder, losses = tmp_path_factory.mktemp(request.param), []
    pipe = copy.deepcopy(base)
    before = Snapshot.of(pipe)
    finetune(
        pipe,
        scenes,
        profile(request.param),
        3,
        folder,
        report=lambda step, steps, loss: losses.append(loss),
    )
    return Tuned(request.param, pipe, before, folder, losses)


@pytest.fixture
def tiny_xl(tiny_pipeline: StableDiffusionPipeline) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL's conditioning, around the tiny pipeline's autoencoder."""
    pipe = tiny_pipeline
    torch.manual_seed(0)
    config = CLIPTextConfig(
        **(pipe.text_encoder.config.to_dict() | {"num_hidden_layers": 2, "projection_dim": 12})
    )
    return StableDiffusionXLPipeline(
        vae=pipe.vae,
        text_encoder=CLIPTextModel(config).eval(),
        text_encoder_2=CLIPTextModelWithProjection(config).eval(),
        tokenizer=pipe.tokenizer,
        tokenizer_2=pipe.tokenizer,
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
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 12,
        ).eval(),
        scheduler=pipe.scheduler,
        add_watermarker=False,
    )
