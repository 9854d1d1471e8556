"""Which parameters each variant trains."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.training.options import ErasingOptions
from spqr_checks.alignment.training.unet import is_trained, trainable


@pytest.mark.parametrize(
    ("trains", "names"),
    [
        ("x", {"attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out"}),
        ("x-strict", {"attn2.to_k", "attn2.to_v"}),
    ],
)
def test_what_the_cross_attention_variants_train(
    tiny_pipeline: StableDiffusionPipeline, trains: Any, names: set[str]
) -> None:
    chosen = {n for n, _ in tiny_pipeline.unet.named_parameters() if is_trained(n, trains)}
    assert {".".join(n.split("transformer_blocks.0.")[1].split(".")[:2]) for n in chosen} == names


def test_the_variants_u_and_x_divide_the_network(tiny_pipeline: StableDiffusionPipeline) -> None:
    for name, _ in tiny_pipeline.unet.named_parameters():
        assert is_trained(name, "u") != is_trained(name, "x")
        assert is_trained(name, "all")


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("trains", ["x", "x-strict", "u", "all"])
def test_only_what_the_variant_trains_asks_for_gradients(
    tiny_pipeline: StableDiffusionPipeline, trains: Any, rank: int
) -> None:
    unet = tiny_pipeline.unet
    chosen = trainable(unet, ErasingOptions(trains=trains, rank=rank), seed=0)
    wanted = {n for n, p in unet.named_parameters() if p.requires_grad}
    assert len(wanted) == len(chosen) > 0
    if rank:
        assert all("lora" in name for name in wanted)
    assert all(is_trained(name, trains) for name in wanted)
