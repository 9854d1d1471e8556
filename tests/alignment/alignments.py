"""AlignGuard in a few quick steps, for its tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest, Progress

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

PROMPTS: dict[str, Any] = {
    "harmful": ["a red triangle", "a small red triangle", "a yellow star", "a large yellow star"],
    "anchors": ["a blue triangle", "a small red circle", "a green star", "a large yellow ring"],
    "categories": ["warm signs", "warm signs", "stars", "stars"],
}


def align(
    pipe: StableDiffusionPipeline, request: AlignmentRequest, out: Path, **options: Any
) -> list[Progress]:
    """Aligns the pipeline in place; returns what was reported."""
    alignguard, seen = method("alignguard"), list[Progress]()
    quick = {"steps": 3, "batch": 2, "learning_rate": 1e-2, "warmup": 0, "rank": 2}
    quick |= {"calibration": 1, "calibration_timesteps": 2, "beta": 50} | options
    alignguard.align(pipe, request, alignguard.parse(quick), out, seen.append)
    return seen


def prediction(pipe: StableDiffusionPipeline, hidden: Tensor | None = None) -> Tensor:
    """What the UNet predicts at two timesteps."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    if hidden is None:
        hidden = torch.randn(2, 32, 16, generator=generator)
    with torch.no_grad():
        return pipe.unet(x, torch.tensor([100, 900]), hidden).sample  # type: ignore[no-any-return]


def record(folder: Path) -> dict[str, Any]:
    """The adapter.json of an entry."""
    return json.loads((folder / "adapter.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
