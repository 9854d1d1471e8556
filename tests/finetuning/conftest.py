"""A few images to learn from, what was learned from them, and a second kind of pipeline."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from tiny_xl import make_xl
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
    return make_xl(tiny_pipeline)
