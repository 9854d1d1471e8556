"""The denoiser in training: a copy that is lent to its pipeline, and in which precision it is."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from spqr_checks.finetuning.denoiser import Widened, widened_whole, working_copy


def test_the_pipeline_has_a_copy_for_a_while_and_then_its_own_again(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    own = tiny_pipeline.unet
    before = own.conv_in.weight.detach().clone()
    with working_copy(tiny_pipeline) as lent:
        assert tiny_pipeline.unet is lent
        assert lent is not own
        with torch.no_grad():
            tiny_pipeline.unet.conv_in.weight.zero_()
    assert tiny_pipeline.unet is own
    assert torch.equal(own.conv_in.weight, before)


def test_it_has_its_own_again_after_an_error(tiny_pipeline: StableDiffusionPipeline) -> None:
    own = tiny_pipeline.unet
    with pytest.raises(KeyboardInterrupt), working_copy(tiny_pipeline):
        raise KeyboardInterrupt
    assert tiny_pipeline.unet is own


def test_a_transformer_is_lent_in_its_place(tiny_pipeline: StableDiffusionPipeline) -> None:
    network = torch.nn.Linear(2, 2)

    class Pipe:
        transformer = network
        components = {"vae": tiny_pipeline.vae, "transformer": network}

    pipe = Pipe()
    with working_copy(pipe) as lent:  # type: ignore[arg-type]
        assert pipe.transformer is lent
        assert lent is not network
        assert tiny_pipeline.vae is Pipe.components["vae"]
    assert pipe.transformer is network


def _network(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(dtype)


def test_chosen_parameters_are_widened_without_loss_and_rounded_afterwards() -> None:
    network = _network(torch.bfloat16)
    before = [p.detach().clone() for p in network.parameters()]
    widened = Widened(network)
    widened.widen([network[1].weight])
    assert [p.dtype for p in network.parameters()] == [
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
        torch.bfloat16,
    ]
    assert torch.equal(network[1].weight, before[2].float())
    widened.restore()
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_all_can_be_widened() -> None:
    network = _network(torch.float16)
    Widened(network).widen()
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_parameters_that_came_later_keep_their_precision() -> None:
    network = _network(torch.bfloat16)
    widened = Widened(network)
    network.append(nn.Linear(2, 2))
    widened.restore()
    assert network[2].weight.dtype == torch.float32
    assert network[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("dtype", "merges", "whole"),
    [
        (torch.float32, False, False),
        (torch.float32, True, False),
        (torch.bfloat16, False, False),
        (torch.bfloat16, True, True),
        (torch.float16, False, True),
    ],
)
def test_a_network_is_widened_whole_in_float16_and_where_adapters_are_merged(
    dtype: torch.dtype, merges: bool, whole: bool
) -> None:
    assert widened_whole(dtype, merges) == whole
