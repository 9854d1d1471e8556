"""A tiny random CLIP in a folder, as anyone's CLIP would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_networks import write_clip


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; see tiny_networks.py."""
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Five images of noise, 20×16 pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 16, 20, 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]
