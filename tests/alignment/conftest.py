"""A small request over words that the tiny pipeline's tokenizer knows, and fresh pipelines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.choices import Sampler

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@pytest.fixture
def make_request() -> Callable[..., AlignmentRequest]:
    """Makes a request; any field can be given."""

    def make(**changes: Any) -> AlignmentRequest:
        values: dict[str, Any] = {
            "concepts": ["red triangle"],
            "harmful": ["a red triangle", "a small red triangle, photo style"],
            "anchors": ["a blue triangle", ""],
            "keep": ["a green circle", "a red square on a white background"],
            "seed": 3,
            "threads": 1,
            "sampler": Sampler(steps=2, guidance=2.0, batch=4),
        }
        return AlignmentRequest(**(values | changes))

    return make


@pytest.fixture
def make_pipeline(tiny_pipeline: StableDiffusionPipeline) -> Callable[[], StableDiffusionPipeline]:
    """Makes pipelines that are bit-equal to ``tiny_pipeline`` as it was at the start."""
    pristine = copy.deepcopy(tiny_pipeline)
    return lambda: copy.deepcopy(pristine)
