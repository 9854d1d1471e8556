"""Methods in a few quick steps: what is written and read back draws the same, every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.choices import Sampler
from spqr_checks.generation.sampling import generate

PROMPTS = ["a red triangle", "a green circle"]
SAMPLER = Sampler(steps=2, guidance=2.0, batch=2)
TRAINS = {"steps": 2, "batch": 2, "learning_rate": 1e-2, "pool": 2, "keep_weight": 1.0}
QUICK: dict[str, dict[str, Any]] = {
    "rece": {"epochs": 1},
    "salun": TRAINS,
    "erasediff": TRAINS,
    "scissorhands": TRAINS | {"blocks": ["up_blocks.0."], "draws": 1, "project": "gem"},
    "stereo": TRAINS
    | {"rounds": 1, "tokens": 1, "template": "a {}", "search_steps": 1, "inversion_steps": 1},
    "advunlearn": {
        "steps": 2,
        "latents": "pool",
        "pool": 2,
        "calm_steps": 1,
        "attack_steps": 1,
        "learning_rate": 1e-2,
    },
    "safree": {"most_steps": 1, "midpoint": -100},
    "resalign": TRAINS | {"inner_steps": 2, "simulated": 1, "unlearning": "anchor"},
    "pgu": TRAINS | {"harden_steps": 2, "harden_rate": 1e-2, "inputs": 4},
    "mace": TRAINS | {"images": 2, "lam": 0.1, "prior_scale": 0.1, "fuse_scale": 0.1},
    "fmn": TRAINS | {"tokens": 2, "template": "a {}", "inversion_steps": 2},
    "spm": TRAINS | {"latents": "pool", "warmup": 0, "learning_rate": 0.3},
}


def drawn(pipe: StableDiffusionPipeline) -> Any:
    return np.stack([np.asarray(i) for i in generate(pipe, PROMPTS, [0, 1], SAMPLER)])


@pytest.mark.parametrize("name", QUICK)
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
