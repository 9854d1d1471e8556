"""A tiny image classifier and a tiny CLIP model in folders, as anyone's would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LABELS = ("red triangle", "blue triangle", "Hazard sign", "traffic_hazard", "house", "red house")


def write_classifier(folder: Path) -> Path:
    """Random weights, 16×16 pixels, six labels."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    model = ResNetForImageClassification(config)
    with torch.no_grad():
        model.classifier[1].weight.normal_(std=1.0)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def spread(model: Any) -> None:
    """The libraries' initial weights are so small that all inputs look alike."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)


def write_clip(folder: Path) -> Path:
    """Random weights, context of 12 tokens, 16×16 pixels, 8 features."""
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
    model = CLIPModel(config)
    spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    return folder
