"""Pipelines of the published sizes with random weights, built where they compute.

Speed and memory depend on the shapes alone, so nothing is downloaded. The shapes are those of the
configurations published with Stable Diffusion 1.5 and Stable Diffusion XL 1.0.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from real_classes import SIZE, build, clip_tokenizer

SIZES = {
    "tiny": ("sd1", "sdxl"),
    "miniature": ("miniature",),
    "sd15": ("sd15",),
    "sd15-quarter": ("sd15-quarter",),
    "sdxl": ("sdxl-1.0",),
}
SIDES = {
    "miniature": 32,
    "sd1": SIZE,
    "sdxl": SIZE,
    "sd15": 512,
    "sd15-quarter": 128,
    "sdxl-1.0": 1024,
}
"""Height and width of the images of each pipeline, in pixels."""
_PARTS = {"sd15": 1, "sd15-quarter": 4}
_VOCABULARY = 49408
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def pipeline(name: str, device: str, dtype: str) -> Any:
    """One of the pipelines in `SIZES`, frozen and silent; the miniature with its own weights."""
    from spqr_checks.models.pipelines import load_pipeline, quiet
    from spqr_checks.models.weights import networks

    if name == "miniature":
        return load_pipeline(name, dtype, device)
    if name in ("sd1", "sdxl"):
        with tempfile.TemporaryDirectory() as folder:
            return load_pipeline(str(build(name, Path(folder) / name)), dtype, device)
    torch.manual_seed(0)
    with quiet():
        pipe = _sdxl(device) if name == "sdxl-1.0" else _sd15(device, _PARTS[name])
    pipe.to(device, getattr(torch, dtype))
    pipe.set_progress_bar_config(disable=True)
    for network in networks(pipe).values():
        network.eval().requires_grad_(False)
    return pipe


def _text(width: int, layers: int, heads: int, act: str, projection: int = 0) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=_VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=act,
        projection_dim=projection or width,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def _vae(part: int = 1, **config: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=[width // part for width in (128, 256, 512, 512)],
        norm_num_groups=32 // part,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        **config,
    )


def _sd15(device: str, part: int = 1) -> Any:
    """With all widths and numbers of heads, and the image's side, divided by ``part``.

    Layers stay as many and heads as wide, so text encoder, autoencoder and UNet keep their shares
    of the time.
    """
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    with torch.device(device):  # the networks only: schedulers compute on the CPU
        networks = {
            "vae": _vae(part, sample_size=512 // part),
            "text_encoder": _text(768 // part, 12, 12 // part, "quick_gelu"),
            "unet": UNet2DConditionModel(
                sample_size=64 // part,
                block_out_channels=[width // part for width in (320, 640, 1280, 1280)],
                cross_attention_dim=768 // part,
                attention_head_dim=8 // part,
                norm_num_groups=32 // part,
            ),
        }
    return StableDiffusionPipeline(
        **networks,
        tokenizer=clip_tokenizer(),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, **_NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(device: str) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    down = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    up = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    with torch.device(device):
        networks = {
            "vae": _vae(sample_size=1024, scaling_factor=0.13025),
            "text_encoder": _text(768, 12, 12, "quick_gelu"),
            "text_encoder_2": _text(1280, 32, 20, "gelu", projection=1280),
            "unet": UNet2DConditionModel(
                sample_size=128,
                block_out_channels=(320, 640, 1280),
                down_block_types=down,
                up_block_types=up,
                transformer_layers_per_block=(1, 2, 10),
                attention_head_dim=(5, 10, 20),
                cross_attention_dim=2048,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=2816,
            ),
        }
    return StableDiffusionXLPipeline(
        **networks,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(pad="!"),
        scheduler=EulerDiscreteScheduler(steps_offset=1, **_NOISE),
        add_watermarker=False,
    )
