"""A Stable Diffusion XL pipeline of the real classes with small random weights."""

from __future__ import annotations

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection


def make_xl(pipe: StableDiffusionPipeline) -> StableDiffusionXLPipeline:
    """Stable Diffusion XL's conditioning around the tiny pipeline's autoencoder."""
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
