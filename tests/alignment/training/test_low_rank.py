"""LoRA factors as values."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks.alignment.training.low_rank import Lora, nearest, put_on, read, truncated
from spqr_checks.errors import UserError
from spqr_checks.models import adapters

seeds = st.integers(0, 2**32)
ranks = st.integers(1, 7)


def made_up(seed: int, rank: int, alpha: float = 3.0) -> Lora:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"one": (5, 4), "two": (3, 6)}
    return Lora(
        {
            layer: (
                torch.randn(rank, into, generator=generator),
                torch.randn(out, rank, generator=generator),
            )
            for layer, (out, into) in shapes.items()
        },
        alpha,
    )


def test_the_update_is_alpha_over_r_times_b_a() -> None:
    lora = Lora({"x": (torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]]))}, 0.5)
    assert lora.delta("x").tolist() == [[1.5, 3.0], [2.0, 4.0]]


@given(seeds, ranks)
def test_a_rank_that_is_large_enough_loses_nothing(seed: int, rank: int) -> None:
    lora = made_up(seed, rank)
    for cut, error in (truncated(lora, 7), nearest(["one", "two"], lora.delta, 7)):
        assert cut.rank == 7
        assert error < 1e-5
        for layer in lora.factors:
            torch.testing.assert_close(cut.delta(layer), lora.delta(layer), atol=1e-4, rtol=1e-4)


@given(seeds, ranks, st.integers(1, 3))
def test_a_lower_rank_loses_what_the_error_says(seed: int, rank: int, low: int) -> None:
    lora = made_up(seed, rank)
    cut, error = truncated(lora, low)
    lost = sum(float((cut.delta(n) - lora.delta(n)).square().sum()) for n in lora.factors)
    whole = sum(float(lora.delta(n).square().sum()) for n in lora.factors)
    assert error == pytest.approx((lost / whole) ** 0.5, abs=1e-4)
    other, other_error = nearest(["one", "two"], lora.delta, low)
    assert other_error == pytest.approx(error, abs=1e-4)
    assert all(torch.linalg.matrix_rank(other.delta(n), atol=1e-4) <= low for n in lora.factors)


def test_no_update_has_no_error() -> None:
    lora = made_up(0, 2)
    nought = Lora({n: (a, torch.zeros_like(b)) for n, (a, b) in lora.factors.items()}, 1.0)
    cut, error = truncated(nought, 1)
    assert error == 0
    assert not cut.delta("one").any()


def test_what_is_read_from_a_network_can_be_put_on_again(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    unet = tiny_pipeline.unet
    adapters.add_lora(unet, 3, 6.0, ["attn1.to_q"], 0, "first")
    with torch.no_grad():
        for parameter in adapters.adapter_tensors(unet, "first").values():
            parameter.add_(0.1)
    lora = read(unet, "first")
    assert (lora.rank, lora.alpha) == (3, 6.0)
    layer = next(iter(lora.factors))
    wanted = unet.get_submodule(layer).get_delta_weight("first")
    torch.testing.assert_close(lora.delta(layer), wanted)
    adapters.remove(tiny_pipeline, "first")
    assert lora.delta(layer).any()  # a copy
    put_on(unet, lora, "second", ["attn1.to_q"])
    assert torch.equal(unet.get_submodule(layer).get_delta_weight("second"), wanted)
    assert not any(p.requires_grad for p in unet.parameters())
    with pytest.raises(ValueError, match="'first'"):
        read(unet, "first")


def test_factors_for_other_layers_are_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(UserError, match="unexpected"):
        put_on(tiny_pipeline.unet, made_up(0, 2), "x", ["attn1.to_q"])
