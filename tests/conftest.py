"""Fixtures for the tests of the package itself."""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

pytest_plugins = ["pytester"]

# properties are checked without a clock: a busy machine is no counterexample
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each worker begins with files that take long, so that none ends alone with one of them.

    xdist gives every worker a stretch of the list. A file's tests stay together, as its fixtures
    ask for.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    stretches: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for tests in sorted(files.values(), key=lambda tests: -max(map(_weight, tests))):
        min(stretches, key=len).extend(tests)
    items[:] = [item for stretch in stretches for item in stretch]


def _weight(item: pytest.Item) -> int:
    return next((w for name, w in _WEIGHTS.items() if item.get_closest_marker(name)), 0)


_WEIGHTS = {"slow": 3, "trains": 2, "heavy": 1}


def pytest_collection_finish() -> None:
    """What is loaded by now stays, so that no garbage collection looks through it again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """Nothing is flushed to the disk; that a store's files are is a test of stores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is parsed of source files is kept apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def make_tiny_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline of the real classes with small random weights, 16×16 images.

    It is the caller's own, a copy of one that is built once.
    """
    import torch

    pipe = copy.deepcopy(_tiny_pipeline(seed))
    torch.manual_seed(seed)
    return pipe


@cache
def _tiny_pipeline(seed: int) -> StableDiffusionPipeline:
    import torch
    from diffusers import (
        AutoencoderKL,
        DPMSolverMultistepScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    from spqr_checks.miniature.tokenizer import train_tokenizer

    torch.manual_seed(seed)
    tokenizer = train_tokenizer(0, captions=200)
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=16,
        ).eval(),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=32,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        ).eval(),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
        ).eval(),
        scheduler=DPMSolverMultistepScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture
def tiny_pipeline() -> StableDiffusionPipeline:
    """A fresh tiny pipeline; tests may change its weights."""
    return make_tiny_pipeline()


@pytest.fixture(scope="session")
def tiny_pipeline_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny pipeline; read only."""
    folder = tmp_path_factory.mktemp("tiny") / "pipeline"
    make_tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: small networks are faster so, and busy machines too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_class(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of the pipelines in `real_classes`, each built once; read only."""
    from real_classes import build

    @cache
    def built(name: str) -> Path:
        return build(name, tmp_path_factory.mktemp("real") / name)

    return built
