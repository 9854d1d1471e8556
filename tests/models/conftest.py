"""Fixtures for the tests of models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@pytest.fixture
def entry(tiny_pipeline: StableDiffusionPipeline, tmp_path: Path) -> Path:
    """A saved adapter of the tiny pipeline, which is plain again."""
    from loras import attach

    from spqr_checks.models import adapters

    attach(tiny_pipeline, "x")
    adapters.save_adapter(tiny_pipeline, tmp_path / "entry", "x", {"trained_on_digest": "abc"})
    adapters.remove(tiny_pipeline, "x")
    return tmp_path / "entry"


@pytest.fixture
def folder(tiny_pipeline_dir: Path, tmp_path: Path) -> Path:
    """A saved tiny pipeline that a test may damage."""
    return shutil.copytree(tiny_pipeline_dir, tmp_path / "pipeline")
