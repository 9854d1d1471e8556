"""Signals of experts: how they are counted, and what they are measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from real_classes import sampler
from torch import Tensor

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training import activations, low_rank
from spqr_checks.alignment.training.activations import (
    Meter,
    Tally,
    calibration_prompts,
    even_timesteps,
    measure,
    watch_inputs,
)
from spqr_checks.alignment.training.low_rank import Lora
from spqr_checks.alignment.training.views import UNetView, view_of
from spqr_checks.models import adapters
from spqr_checks.models.pipelines import load_pipeline

MakeRequest = Callable[..., AlignmentRequest]


def test_a_vote_goes_to_the_largest_signal_of_each_unit() -> None:
    tally = Tally(experts=2, units=3)
    # two inputs, three units; the last unit is silent
    tally.add(
        torch.tensor([[[1.0, 5.0, 0.0], [1.0, 5.0, 0.0]], [[2.0, 4.0, 0.0], [0.5, 9.0, 0.0]]])
    )
    assert tally.votes.tolist() == [[1, 1, 0], [1, 1, 0]]
    assert tally.sums.tolist() == [[2.0, 10.0, 0.0], [2.5, 13.0, 0.0]]
    assert tally.winners("vote").tolist() == [1, 1, 0]  # equal votes: the larger mean


def test_votes_outweigh_means_and_equals_fall_to_the_first() -> None:
    tally = Tally(experts=2, units=1)
    tally.add(torch.tensor([[[1.0], [1.0], [0.0]], [[0.5], [0.5], [9.0]]]))
    assert tally.winners("vote").tolist() == [0]
    assert tally.winners("mean").tolist() == [1]
    tally = Tally(experts=3, units=1)
    tally.add(torch.ones(3, 2, 1))
    assert tally.votes.tolist() == [[2], [0], [0]]
    assert tally.winners("mean").tolist() == [0]


def test_the_signals_are_the_experts_outputs_averaged_over_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    experts = [
        Lora(
            {"x": (torch.randn(2, 3, generator=generator), torch.randn(4, 2, generator=generator))},
            1.0,
        )
        for _ in range(2)
    ]
    meter = Meter(experts)
    x = torch.randn(1, 5, 3, generator=generator)
    meter.measure("x", x)
    for k, expert in enumerate(experts):
        rows = torch.stack([expert.delta("x") @ token for token in x[0]]).abs().mean(dim=0)
        hidden = (x[0] @ expert.factors["x"][0].T).abs().mean(dim=0)
        signals = meter.layers["x"]
        torch.testing.assert_close(signals.rows.sums[k].float(), rows)
        torch.testing.assert_close(signals.hidden.sums[k].float(), hidden)
        torch.testing.assert_close(signals.matrix.sums[k].float(), rows.mean()[None])


def test_calibration_prompts_are_balanced_over_the_categories(make_request: MakeRequest) -> None:
    texts = [f"prompt {n}" for n in range(12)]
    request = make_request(harmful=texts, anchors=texts, categories=["a"] * 8 + ["b"] * 3 + ["c"])
    chosen = calibration_prompts(request, 3)
    of = dict(zip(texts, request.categories, strict=True))
    assert Counter(of[text] for text in chosen) == {"a": 3, "b": 3, "c": 1}
    assert chosen == calibration_prompts(request, 3)


def test_timesteps_are_the_middles_of_equal_parts() -> None:
    assert even_timesteps(1000, 4) == [125, 375, 625, 875]
    assert even_timesteps(1000, 1) == [500]
    assert even_timesteps(3, 5) == [0, 0, 1, 2, 2]


@pytest.fixture
def expert(tiny_pipeline: StableDiffusionPipeline) -> Lora:
    unet = tiny_pipeline.unet
    adapters.add_lora(unet, 2, 2, adapters.TARGETS, 0, "x")
    with torch.no_grad():
        for parameter in adapters.adapter_tensors(unet, "x").values():
            parameter.add_(0.1)
    expert = low_rank.read(unet, "x")
    adapters.remove(tiny_pipeline, "x")
    return expert


def test_every_layer_sees_each_prompt_at_each_timestep_once(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: MakeRequest,
    expert: Lora,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, list[Tensor]] = {}

    class Recorder(Meter):
        def measure(self, layer: str, x: Tensor) -> None:
            seen.setdefault(layer, []).append(x)
            super().measure(layer, x)

    monkeypatch.setattr(activations, "Meter", Recorder)
    texts = ["a red triangle", "a yellow star", "a small red triangle"]
    request = make_request(harmful=texts, anchors=texts)  # batches of 4
    view = UNetView(tiny_pipeline, request.sampler)
    torch.manual_seed(1)
    first = measure(view, request, [expert], prompts_per_category=3, timesteps=2)
    torch.manual_seed(2)
    second = measure(view, request, [expert], prompts_per_category=3, timesteps=2)
    assert seen.keys() == expert.factors.keys()
    for layer, inputs in seen.items():
        assert [len(x) for x in inputs] == [3, 3, 3, 3]  # two timesteps, measured twice
        width = expert.factors[layer][0].shape[1]
        assert all(x.shape[2] == width for x in inputs)
        # the same inputs on repetition, others at another timestep
        assert torch.equal(inputs[0], inputs[2])
        cross = "attn2.to_k" in layer or "attn2.to_v" in layer
        assert torch.equal(inputs[0], inputs[1]) == cross  # prompts know no timestep
    for layer, signals in first.items():
        assert torch.equal(signals.rows.sums, second[layer].rows.sums)
    assert not any(module._forward_pre_hooks for module in tiny_pipeline.unet.modules())


@pytest.mark.parametrize("kind", ["sd3", "pixart"])
def test_transformers_are_asked_at_even_places_of_their_own_schedule(
    real_class: Callable[[str], Path], make_request: MakeRequest, kind: str
) -> None:
    pipe = load_pipeline(str(real_class(kind)))
    request = make_request(sampler=sampler(kind))
    view = view_of(pipe, request.sampler, "alignguard")
    asked: list[float] = []
    layer = (
        "transformer_blocks.0.attn1.to_q" if kind == "pixart" else "transformer_blocks.0.attn.to_q"
    )
    seen: list[Tensor] = []
    hook = pipe.transformer.register_forward_pre_hook(
        lambda _m, _a, given: asked.append(float(torch.as_tensor(given["timestep"]).flatten()[0])),
        with_kwargs=True,
    )
    watch_inputs(view, request, ["a red triangle"], [layer], lambda _, x: seen.append(x), 4)
    hook.remove()
    schedule = view.noiser.objective.schedule
    wanted = [float(schedule[place]) for place in (125, 375, 625, 875)]
    assert asked[-4:] == pytest.approx(wanted)
    assert wanted[0] < wanted[-1]
    assert len(seen) == 4
