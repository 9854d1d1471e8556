"""Which parameters each variant trains."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from tiny_xl import make_xl
from torch import nn

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


@pytest.mark.parametrize("xl", [False, True])
def test_the_variants_of_all_but_cross_attention_are_those_of_esd_s_two_codes(
    tiny_pipeline: StableDiffusionPipeline, xl: bool
) -> None:
    unet = make_xl(tiny_pipeline).unet if xl else tiny_pipeline.unet
    names = {name for name, _ in unet.named_parameters()}
    outside = {name for name in names if not is_trained(name, "x")}
    assert names == {name for name in names if is_trained(name, "all")} > outside
    # noxattn leaves out the output layers (out.*) and the embedding of time (time_embed.*)
    left_out = {name.split(".")[0] for name in outside if not is_trained(name, "u")}
    assert left_out == {"conv_norm_out", "conv_out", "time_embedding"}
    assert not any(is_trained(name, "u") for name in names - outside)
    # esd-u takes linear layers and convolutions, by their class
    layers = [(n, m) for n, m in unet.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    taken = {f"{n}.{p}" for n, m in layers if "attn2" not in n for p, _ in m.named_parameters()}
    assert taken == {name for name in names if is_trained(name, "u-current")}


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("trains", ["x", "x-strict", "u", "u-current", "all"])
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
