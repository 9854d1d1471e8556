"""A tiny random CLIP in a folder, as anyone's CLIP would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; context of 12 tokens, 16×16 pixels, 8 features."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from spqr_checks.miniature.tokenizer import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(0, captions=200)
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 12,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config=small | text, vision_config=small | vision, projection_dim=8)
    folder = tmp_path_factory.mktemp("clip")
    model = CLIPModel(config)
    # the library's initial weights are so small that all inputs look alike
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Five images of noise, 20×16 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 16, 20, 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]
