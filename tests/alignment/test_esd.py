"""ESD trained on a pipeline of the real classes, a few steps at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest, Progress
from spqr_checks.alignment.training.unet import is_trained
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode
from spqr_checks.models.weights import copy_state

MakePipeline = Callable[[], StableDiffusionPipeline]
ESD = method("esd")


@pytest.fixture
def align(make_request: Callable[..., AlignmentRequest]) -> Callable[..., list[Progress]]:
    """Aligns in a few quick steps; returns what was reported."""

    def run(
        pipe: StableDiffusionPipeline, out: Path, seed: int = 3, **options: Any
    ) -> list[Progress]:
        seen: list[Progress] = []
        quick = {"steps": 3, "batch": 2, "learning_rate": 1e-2} | options
        ESD.align(pipe, make_request(seed=seed), ESD.parse(quick), out, seen.append)
        return seen

    return run


Align = Callable[..., list[Progress]]


def prediction(pipe: StableDiffusionPipeline, hidden: Tensor | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    if hidden is None:
        hidden = torch.randn(2, 32, 16, generator=generator)
    with torch.no_grad():
        return pipe.unet(x, torch.tensor([100, 900]), hidden).sample  # type: ignore[no-any-return]


@pytest.mark.parametrize("trains", ["x", "x-strict", "u", "all"])
def test_only_the_variant_s_parameters_change(
    tiny_pipeline: StableDiffusionPipeline, align: Align, tmp_path: Path, trains: str
) -> None:
    before = copy_state(tiny_pipeline)
    align(tiny_pipeline, tmp_path, trains=trains, latents="pool")
    after = copy_state(tiny_pipeline)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    wanted = {name for name in after if is_trained(name, trains)}  # type: ignore[arg-type]
    assert changed == wanted


@pytest.mark.parametrize(("latents", "rank"), [("student", 0), ("base", 2), ("pool", 2)])
def test_repetition_is_bit_equal(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path, latents: str, rank: int
) -> None:
    entries: list[bytes] = []
    for turn in range(2):
        torch.manual_seed(turn)  # nothing may depend on the global generator
        out = tmp_path / str(turn)
        out.mkdir()
        align(make_pipeline(), out, latents=latents, rank=rank, keep_weight=1.0)
        (entry,) = out.glob("*.safetensors")
        entries.append(entry.read_bytes())
    assert entries[0] == entries[1]


def test_another_seed_is_another_training(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path
) -> None:
    predicted = []
    for seed in (0, 1):
        pipe = make_pipeline()
        align(pipe, tmp_path, seed=seed)
        predicted.append(prediction(pipe))
    assert not torch.equal(*predicted)


def test_saved_weights_predict_the_same(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path
) -> None:
    pipe, again = make_pipeline(), make_pipeline()
    align(pipe, tmp_path)
    apply_alignment(again, tmp_path)
    assert torch.equal(prediction(again), prediction(pipe))
    assert not torch.allclose(prediction(again), prediction(make_pipeline()))


@pytest.mark.parametrize("trains", ["x", "x-strict", "u", "all"])
def test_a_saved_adapter_predicts_the_same(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path, trains: str
) -> None:
    pipe, again = make_pipeline(), make_pipeline()
    align(pipe, tmp_path, rank=2, alpha=4, trains=trains, latents="pool")
    assert not (tmp_path / "denoiser.safetensors").exists()
    apply_alignment(again, tmp_path)
    torch.testing.assert_close(prediction(again), prediction(pipe), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(prediction(again), prediction(make_pipeline()), atol=1e-3)


def test_training_lowers_the_loss(
    tiny_pipeline: StableDiffusionPipeline, align: Align, tmp_path: Path
) -> None:
    seen = align(tiny_pipeline, tmp_path, steps=40, batch=6, latents="pool", eta=0, rank=4)
    assert (seen[0].step, seen[-1].step) == (1, 40)
    assert seen[-1].loss < 0.5 * seen[0].loss


def test_preservation_holds_prompts_to_keep(
    make_pipeline: MakePipeline,
    make_request: Callable[..., AlignmentRequest],
    align: Align,
    tmp_path: Path,
) -> None:
    hidden = encode(make_pipeline(), make_request().keep).hidden

    def moved(keep_weight: float) -> float:
        pipe = make_pipeline()
        before = prediction(pipe, hidden)
        align(pipe, tmp_path, steps=20, batch=4, latents="pool", keep_weight=keep_weight)
        return float((prediction(pipe, hidden) - before).norm())

    assert moved(10.0) < 0.5 * moved(0.0)


def test_a_training_that_diverges_writes_nothing(
    tiny_pipeline: StableDiffusionPipeline, align: Align, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="diverged"):
        align(tiny_pipeline, tmp_path, learning_rate=1e30, steps=5)
    assert list(tmp_path.iterdir()) == []


def test_a_low_precision_pipeline_is_trained_in_single_precision(
    make_pipeline: MakePipeline, align: Align, tmp_path: Path
) -> None:
    pipe, again = make_pipeline().to(torch.bfloat16), make_pipeline().to(torch.bfloat16)
    align(pipe, tmp_path, keep_weight=1.0, rank=2, latents="pool", learning_rate=1e-6)
    assert next(pipe.unet.parameters()).dtype == torch.bfloat16
    apply_alignment(again, tmp_path)
    # steps too small for bfloat16 are on record
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "adapter.safetensors")
    assert any(0 < v.abs().max() < 1e-4 for k, v in tensors.items() if "lora_B" in k)


def test_the_entry_carries_its_record(
    tiny_pipeline: StableDiffusionPipeline, align: Align, tmp_path: Path
) -> None:
    align(tiny_pipeline, tmp_path, eta=2)
    record = json.loads((tmp_path / "alignment.json").read_text(encoding="utf-8"))
    assert record["name"] == "esd"
    assert record["options"]["eta"] == 2
