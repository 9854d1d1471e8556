"""A copy of the denoiser that is lent to its pipeline."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.finetuning.denoiser import working_copy


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
