"""Rendered training images with their scenes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from spqr_checks.miniature.renderer import render_all
from spqr_checks.miniature.scene import Scene, any_scene


@dataclass(frozen=True)
class Pool:
    """Images, uint8, shape (n, 3, 32, 32), and the scene of each."""

    images: torch.Tensor
    scenes: list[Scene]

    def __len__(self) -> int:
        return len(self.scenes)

    def signed(self, index: torch.Tensor) -> torch.Tensor:
        """Selected images as floats in [-1, 1]."""
        return self.images[index].float() / 127.5 - 1

    @classmethod
    def rendered(cls, n: int, seed: int, styles: Sequence[str]) -> Pool:
        rng = random.Random(seed)
        scenes = [any_scene(rng, styles) for _ in range(n)]
        pixels = torch.from_numpy(render_all(scenes, rng))
        return cls(pixels.permute(0, 3, 1, 2).contiguous(), scenes)
