"""A tiny image classifier in a folder, as anyone's classifier would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_networks import write_classifier


@pytest.fixture(scope="session")
def classifier_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; see tiny_networks.py."""
    return write_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def two_labels_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; a vision transformer of random weights with the labels normal and nsfw."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        id2label={0: "normal", 1: "nsfw"},
        label2id={"normal": 0, "nsfw": 1},
    )
    folder = tmp_path_factory.mktemp("two-labels")
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Five images of noise, 20×16 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 16, 20, 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]
