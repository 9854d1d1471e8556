"""Methods in a few quick steps write the same bytes every time; see also test_model_families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from quick import QUICK

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest

ELSEWHERE = {"uce", "esd", "sdd", "ca", "alignguard", "duo", "sc-dpo", "modular-lora"}
ELSEWHERE |= {"sld", "safe-latent-blend"}
"""Methods whose own tests say so."""


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted(QUICK.keys() - ELSEWHERE))
def test_repetition_is_bit_equal(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    name: str,
) -> None:
    chosen = method(name)
    request = make_request(anchors=["a blue triangle", "a small red circle, photo style"])
    for turn in range(2):
        torch.manual_seed(turn)  # nothing is drawn from the global generator
        chosen.align(make_pipeline(), request, chosen.parse(QUICK[name]), tmp_path / str(turn))
    files = sorted(path.name for path in (tmp_path / "0").iterdir())
    assert "alignment.json" in files
    for file in files:
        assert (tmp_path / "0" / file).read_bytes() == (tmp_path / "1" / file).read_bytes(), file
