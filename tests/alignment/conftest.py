"""A small request over words that the tiny pipeline's tokenizer knows, and fresh pipelines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from originals import ANCHORS, CONCEPTS, HARMFUL, LR, Given, Texts
from torch import Tensor

from spqr_checks.alignment.registry import method
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


@pytest.fixture
def request_(make_request: Callable[..., AlignmentRequest]) -> AlignmentRequest:
    return make_request(harmful=HARMFUL, anchors=ANCHORS, concepts=CONCEPTS)


@pytest.fixture
def texts(tiny_pipeline: StableDiffusionPipeline) -> Texts:
    """Hidden states of the text encoder; it is never trained."""

    def encode(prompts: list[str]) -> Tensor:
        ids = tiny_pipeline.tokenizer(
            prompts, padding="max_length", max_length=32, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            return tiny_pipeline.text_encoder(ids)[0]  # type: ignore[no-any-return]

    return encode


@pytest.fixture
def aligned(
    tiny_pipeline: StableDiffusionPipeline,
    request_: AlignmentRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Given]:
    """Aligns the pipeline; returns what a function of the training gave, or was given."""

    def run(
        name: str, owner: type, function: str, arguments: bool = False, **options: Any
    ) -> Given:
        seen: Given = []
        own = getattr(owner, function)

        def note(self: Any, *given: Any) -> Any:
            answer = own(self, *given)
            seen.append(given if arguments else answer)
            return answer

        monkeypatch.setattr(owner, function, note)
        chosen = method(name)
        parsed = chosen.parse({"steps": 2, "batch": 2, "learning_rate": LR} | options)
        chosen.align(tiny_pipeline, request_, parsed, tmp_path)
        return seen

    return run
