"""A pipeline whose prompts matter, with one thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from tiny_xl import make_xl


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def attentive(unet: torch.nn.Module) -> None:
    """Makes the random network heed its prompt: cross-attention as strong as the rest."""
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "attn2.to_v" in name or "attn2.to_out.0.weight" in name:
                parameter.mul_(4)


@pytest.fixture
def pipe(tiny_pipeline: StableDiffusionPipeline) -> StableDiffusionPipeline:
    attentive(tiny_pipeline.unet)
    return tiny_pipeline


@pytest.fixture
def xl(tiny_pipeline: StableDiffusionPipeline) -> StableDiffusionXLPipeline:
    made = make_xl(tiny_pipeline)
    attentive(made.unet)
    return made
