"""Methods in a few quick steps: what is written and read back draws the same, every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from quick import QUICK

from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.choices import Sampler
from spqr_checks.generation.sampling import generate

PROMPTS = ["a red triangle", "a green circle"]
SAMPLER = Sampler(steps=2, guidance=2.0, batch=2)
ELSEWHERE = {"uce", "esd", "sdd", "ca", "alignguard", "duo", "sc-dpo", "modular-lora"}
ELSEWHERE |= {"sld", "safe-latent-blend"}
"""Methods whose own tests say so."""


def drawn(pipe: StableDiffusionPipeline) -> Any:
    return np.stack([np.asarray(i) for i in generate(pipe, PROMPTS, [0, 1], SAMPLER)])


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted(QUICK.keys() - ELSEWHERE))
def test_what_is_read_back_draws_the_same_and_repetition_is_bit_equal(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    name: str,
) -> None:
    chosen, pipes = method(name), [make_pipeline() for _ in range(2)]
    request = make_request(anchors=["a blue triangle", "a small red circle, photo style"])
    for turn, pipe in enumerate(pipes):
        torch.manual_seed(turn)  # nothing is drawn from the global generator
        chosen.align(pipe, request, chosen.parse(QUICK[name]), tmp_path / str(turn))
    files = sorted(path.name for path in (tmp_path / "0").iterdir())
    assert "alignment.json" in files
    for file in files:
        assert (tmp_path / "0" / file).read_bytes() == (tmp_path / "1" / file).read_bytes(), file
    again, base = make_pipeline(), make_pipeline()
    apply_alignment(again, tmp_path / "0")
    assert np.array_equal(drawn(again), drawn(pipes[0]))
    assert not np.array_equal(drawn(base), drawn(pipes[0]))
