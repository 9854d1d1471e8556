"""``sampler.compile``: the same images but for last bits, and nothing left behind."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation import compiled
from spqr_checks.generation.guidance.base import attach_guidance, detach_guidance
from spqr_checks.generation.guidance.spm import SpmGuidance
from spqr_checks.generation.sampling import GenerationError, generate

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = Sampler(steps=2, guidance=3.0, batch=2)
COMPILED = PLAIN.model_copy(update={"compile": True})
PROMPTS = ["a red circle", "a blue star"]


def drawn(pipe: Any, sampler: Sampler) -> np.ndarray:
    images = generate(pipe, PROMPTS, [0, 1], sampler)
    return np.stack([np.asarray(image, np.int16) for image in images])


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are captured and run by torch itself: generating code for them takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    compiled._compiled.cache_clear()


@pytest.mark.heavy
@pytest.mark.usefixtures("quickly")
def test_denoiser_and_decoder_are_compiled_and_are_afterwards_as_they_were(
    tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[type] = []
    forward_of = compiled._compiled
    monkeypatch.setattr(compiled, "_compiled", lambda kind: kinds.append(kind) or forward_of(kind))
    before = drawn(tiny_pipeline, PLAIN)
    assert kinds == []
    assert np.abs(drawn(tiny_pipeline, COMPILED) - before).max() <= 1
    networks = [tiny_pipeline.unet, tiny_pipeline.vae.decoder]
    assert kinds == [type(network) for network in networks]
    for network in networks:
        assert "forward" not in vars(network)
        assert all(p.is_contiguous() for p in network.parameters())
    assert np.array_equal(drawn(tiny_pipeline, PLAIN), before)


def spm(pipe: Any) -> SpmGuidance:
    """Strong adapters on every linear layer of the UNet."""
    random, factors = torch.Generator().manual_seed(0), {}
    for name, layer in pipe.unet.named_modules():
        if isinstance(layer, torch.nn.Linear):
            out, into = layer.weight.shape
            factors[f"{name}.lora_A.weight"] = torch.randn(2, into, generator=random)
            factors[f"{name}.lora_B.weight"] = torch.randn(out, 2, generator=random)
    about = {"alpha": 1.0, "transport": "paper", "metric": "both"}
    return SpmGuidance.of({"circle": factors}, {"circle": ("a red circle",)}, **about)


@pytest.mark.usefixtures("quickly")
def test_what_a_guidance_hooks_into_a_network_is_not_compiled_away(tiny_pipeline: Any) -> None:
    base = drawn(tiny_pipeline, COMPILED)
    attach_guidance(tiny_pipeline, spm(tiny_pipeline))
    steered = drawn(tiny_pipeline, PLAIN)
    assert np.abs(steered - base).max() > 8
    assert np.abs(drawn(tiny_pipeline, COMPILED) - steered).max() <= 1
    detach_guidance(tiny_pipeline)
    assert np.array_equal(drawn(tiny_pipeline, COMPILED), base)


@pytest.mark.usefixtures("quickly")
def test_what_is_not_finite_is_refused_as_ever(tiny_pipeline: Any) -> None:
    drawn(tiny_pipeline, COMPILED)
    with torch.no_grad():
        tiny_pipeline.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(GenerationError, match="NaN or infinity"):
        drawn(tiny_pipeline, COMPILED)


def test_it_does_not_go_with_offload(tiny_pipeline: Any) -> None:
    tiny_pipeline.unet.forward = tiny_pipeline.unet.forward  # as accelerate's hooks do
    with pytest.raises(UserError, match="does not go with offload"):
        drawn(tiny_pipeline, COMPILED)


@pytest.mark.slow
def test_generated_code_draws_the_same_images(
    tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder's: each layer takes the compiler seconds, and processes of its own take more."""
    from torch._inductor import config, metrics

    monkeypatch.setattr(config, "compile_threads", 1)
    generated = metrics.generated_kernel_count
    compiled._compiled.cache_clear()
    compile_of, decoder = compiled._compiled, type(tiny_pipeline.vae.decoder)
    monkeypatch.setattr(
        compiled, "_compiled", lambda kind: compile_of(kind) if kind is decoder else kind.forward
    )
    before = drawn(tiny_pipeline, PLAIN)
    assert np.abs(drawn(tiny_pipeline, COMPILED) - before).max() <= 1
    assert metrics.generated_kernel_count > generated
