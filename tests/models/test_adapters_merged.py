"""LoRA adapters taken off again or folded into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from loras import ALPHA, LAYER, RANK, attach, drawn, fill, is_plain
from written_adapters import tensors_of

from spqr_checks.errors import UserError
from spqr_checks.models import adapters
from spqr_checks.models.weights import copy_state, weights_digest

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def test_removing_gives_back_exactly_the_outputs_before(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    reference, plain = copy_state(tiny_pipeline), drawn(tiny_pipeline)
    with_one = attach(tiny_pipeline, "one")
    adapters.add_lora(tiny_pipeline.unet, 2, 3.0, ["attn2.to_v", "conv1"], 3, "two")
    fill(tiny_pipeline.unet, "two")
    assert not torch.equal(drawn(tiny_pipeline), with_one)
    adapters.remove(tiny_pipeline, "two")
    assert torch.equal(drawn(tiny_pipeline), with_one)
    assert adapters.active_adapters(tiny_pipeline.unet) == ["one"]
    adapters.remove(tiny_pipeline, "one")
    assert torch.equal(drawn(tiny_pipeline), plain)
    assert is_plain(tiny_pipeline, reference)
    with pytest.raises(ValueError, match="no adapter 'one' is attached"):
        adapters.remove(tiny_pipeline, "one")


def test_merging_keeps_the_outputs_and_leaves_plain_weights(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    reference = copy_state(tiny_pipeline)
    attach(tiny_pipeline, "safety", seed=4)
    adapters.load_adapter(tiny_pipeline, entry, "tuned", 0.5)
    before = drawn(tiny_pipeline)
    adapters.merge(tiny_pipeline)
    torch.testing.assert_close(drawn(tiny_pipeline), before, rtol=1e-4, atol=1e-5)
    assert is_plain(tiny_pipeline, reference)


def test_the_merged_weight_is_w_plus_scale_alpha_over_r_b_a(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    reference = copy_state(tiny_pipeline)[f"{LAYER}.weight"]
    a, b = (tensors_of(entry)[f"{LAYER}.lora_{k}.weight"] for k in "AB")
    adapters.load_adapter(tiny_pipeline, entry, "x", 0.7)
    adapters.merge(tiny_pipeline)
    expected = reference.double() + 0.7 * (ALPHA / RANK) * (b.double() @ a.double())
    merged = tiny_pipeline.unet.state_dict()[f"{LAYER}.weight"]
    torch.testing.assert_close(merged.double(), expected, rtol=1e-6, atol=1e-6)


def test_the_order_of_attaching_does_not_matter_to_the_merged_weights(
    tiny_pipeline: StableDiffusionPipeline, entry: Path, tmp_path: Path
) -> None:
    reference = copy_state(tiny_pipeline)
    attach(tiny_pipeline, "y", seed=9, rank=2)
    adapters.save_adapter(tiny_pipeline, tmp_path / "other", "y", {})
    adapters.remove(tiny_pipeline, "y")
    merged = []
    for order in ((entry, tmp_path / "other"), (tmp_path / "other", entry)):
        tiny_pipeline.unet.load_state_dict(reference)
        for index, folder in enumerate(order):
            adapters.load_adapter(tiny_pipeline, folder, f"a{index}")
        adapters.merge(tiny_pipeline)
        merged.append(copy_state(tiny_pipeline))
    for key in reference:
        torch.testing.assert_close(merged[0][key], merged[1][key], rtol=1e-6, atol=1e-6)


def test_merging_drops_what_does_not_act(tiny_pipeline: StableDiffusionPipeline) -> None:
    plain = drawn(tiny_pipeline)
    attach(tiny_pipeline, "safety")
    adapters.activate(tiny_pipeline.unet, [])
    adapters.merge(tiny_pipeline)
    assert torch.equal(drawn(tiny_pipeline), plain)


def test_merging_rounds_once_to_half_precision(
    tiny_pipeline: StableDiffusionPipeline, entry: Path
) -> None:
    tiny_pipeline.unet.half()
    reference = copy_state(tiny_pipeline)[f"{LAYER}.weight"]
    for name in ("x", "y", "z"):
        adapters.load_adapter(tiny_pipeline, entry, name, 0.1)
    layer = tiny_pipeline.unet.get_submodule(LAYER)
    total = reference.float()
    for name in ("x", "y", "z"):
        total = total + layer.get_delta_weight(name).detach()
    adapters.merge(tiny_pipeline)
    assert torch.equal(tiny_pipeline.unet.state_dict()[f"{LAYER}.weight"], total.half())


def test_merging_what_is_not_finite_is_refused_and_merges_nothing(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    attach(tiny_pipeline, "x")
    digest = weights_digest(tiny_pipeline.unet)
    last = list(adapters.adapter_tensors(tiny_pipeline.unet, "x").values())[-1]
    with torch.no_grad():
        last[0, 0] = float("inf")
    with pytest.raises(UserError, match="merged weights: .* holds NaN or infinite"):
        adapters.merge(tiny_pipeline)
    assert weights_digest(tiny_pipeline.unet) == digest
