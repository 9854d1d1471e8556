"""DUO trained on a pipeline of the real classes, a few steps at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.preference import Preference
from spqr_checks.errors import UserError

MakePipeline = Callable[[], StableDiffusionPipeline]
DUO = method("duo")
Align = Callable[..., None]


@pytest.fixture
def align(make_request: Callable[..., AlignmentRequest]) -> Align:
    def run(pipe: StableDiffusionPipeline, out: Path, **options: Any) -> None:
        request = make_request(anchors=["a blue triangle", "a small red circle, photo style"])
        quick = {"steps": 3, "batch": 2, "rank": 2, "beta": 50, "learning_rate": 1e-2} | options
        DUO.align(pipe, request, DUO.parse(quick), out)

    return run


def prediction(pipe: StableDiffusionPipeline, timestep: int = 500, empty: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 4, 8, 8, generator=generator)
    hidden = torch.randn(4, 32, 16, generator=generator)
    if empty:
        hidden = pipe.encode_prompt("", pipe.device, 1, False)[0].repeat(4, 1, 1)
    with torch.no_grad():
        return pipe.unet(x, timestep, hidden).sample  # type: ignore[no-any-return]


@pytest.mark.heavy
def test_only_self_attention_is_adapted(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path
) -> None:
    pipe, again = make_pipeline(), make_pipeline()
    align(pipe, tmp_path)
    tensors = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    assert all(".attn1." in key for key in tensors)
    record = json.loads((tmp_path / "adapter.json").read_text(encoding="utf-8"))
    assert set(record["target_modules"]) == {
        "attn1.to_q",
        "attn1.to_k",
        "attn1.to_v",
        "attn1.to_out.0",
    }
    apply_alignment(again, tmp_path)
    torch.testing.assert_close(prediction(again), prediction(pipe), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(prediction(again), prediction(make_pipeline()), atol=1e-4)


@pytest.mark.heavy
def test_repetition_is_bit_equal(make_pipeline: MakePipeline, align: Align, tmp_path: Path) -> None:
    for turn in range(2):
        torch.manual_seed(turn)
        align(make_pipeline(), tmp_path / str(turn), keep_weight=1.0)
    first, second = (tmp_path / turn / "pytorch_lora_weights.safetensors" for turn in "01")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.heavy
def test_the_prior_at_pure_noise_is_preserved(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path
) -> None:
    before = prediction(make_pipeline(), 999, empty=True)

    def moved(weight: float) -> float:
        pipe = make_pipeline()
        align(pipe, tmp_path, prior_weight=weight, steps=20, batch=4)
        return float((prediction(pipe, 999, empty=True) - before).norm())

    free = moved(0.0)
    assert free > 0.01
    assert moved(1e6) < 0.5 * free


def test_the_default_rates_are_the_authors_rules(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, Any]] = []

    def spy(objective: Preference, *_: Any, **given: Any) -> None:
        seen.append({"objective": objective} | given)

    monkeypatch.setattr(Preference, "align", spy)
    request = make_request(anchors=["a blue triangle", "a red circle"])
    DUO.align(tiny_pipeline, request, DUO.parse({}), tmp_path)
    DUO.align(tiny_pipeline, request, DUO.parse({"beta": 1000, "steps": 500}), tmp_path)
    assert [entry["learning_rate"] for entry in seen] == pytest.approx([6e-5, 3e-5])
    assert seen[0]["objective"].options.weight_decay == 1e-2
    assert set(seen[0]["objective"].pairs.captions) == {""}
    # the paper's loss has no factor 1/2 before beta
    assert [entry["objective"].beta for entry in seen] == [1000, 2000]
    assert seen[0]["objective"].share == 0.75


def test_a_prompt_without_an_anchor_is_refused(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="has no anchor"):
        DUO.align(tiny_pipeline, make_request(), DUO.parse({}), tmp_path)
    assert list(tmp_path.iterdir()) == []
