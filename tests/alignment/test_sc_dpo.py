"""SC-DPO: its rewards, and a short training on a pipeline of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment import sc_dpo
from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.sc_dpo import ScDpoOptions, rewarded_pairs, rewards
from spqr_checks.alignment.training.options import PreferenceOptions
from spqr_checks.alignment.training.pair_images import choose_each, draw_both
from spqr_checks.alignment.training.preference import Preference
from spqr_checks.alignment.training.views import UNetView
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError

MakePipeline = Callable[[], StableDiffusionPipeline]
SC_DPO = method("sc-dpo")
HARMFUL = ["a red triangle", "a small red triangle, photo style"]
ANCHORS = ["a blue triangle", "a small red circle, photo style"]


@pytest.fixture
def request_(make_request: Callable[..., AlignmentRequest]) -> AlignmentRequest:
    return make_request(harmful=HARMFUL, anchors=ANCHORS)


def test_a_reward_is_preference_minus_weighed_cost() -> None:
    found = rewards(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0]), 2.0)
    assert found.tolist() == [-1.0, 0.5]


def test_tokens_that_a_denoiser_does_not_read_mean_nothing() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [99.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert sc_dpo._meaning(SimpleNamespace(hidden=hidden)).item() == pytest.approx(103 / 3)
    assert sc_dpo._meaning(SimpleNamespace(hidden=hidden, mask=mask)).tolist() == [[2.0]]


def test_pairs_stand_under_harmful_and_clean_captions_and_the_safe_image_wins(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest
) -> None:
    pairs, weights = rewarded_pairs(
        UNetView(tiny_pipeline, request_.sampler), request_, ScDpoOptions()
    )
    safe, unsafe = draw_both(
        UNetView(tiny_pipeline, request_.sampler), request_, choose_each(request_, None)
    )
    assert sorted(pairs.captions) == sorted(HARMFUL + ANCHORS)
    assert torch.equal(pairs.winners, safe.repeat(2, 1, 1, 1))
    assert torch.equal(pairs.losers, unsafe.repeat(2, 1, 1, 1))
    assert float(weights.mean()) == pytest.approx(1)
    # under its own prompt the safe image is better on both counts
    assert float(weights[2:].min()) > float(weights[:2].max())


def test_without_a_margin_all_pairs_weigh_the_same(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest
) -> None:
    _, weights = rewarded_pairs(
        UNetView(tiny_pipeline, request_.sampler), request_, ScDpoOptions(margin=0)
    )
    assert weights.tolist() == [1.0] * 4


def test_clean_prompts_prefer_their_own_images(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest
) -> None:
    pairs, _ = rewarded_pairs(
        UNetView(tiny_pipeline, request_.sampler), request_, ScDpoOptions(clean=3)
    )
    assert len(pairs) == 4 + 3
    assert set(pairs.captions[4:]) <= set(request_.keep)
    assert not torch.equal(pairs.winners[4:], pairs.losers[4:])


def test_the_reward_decides_who_wins(
    tiny_pipeline: StableDiffusionPipeline, make_request: Callable[..., AlignmentRequest]
) -> None:
    # an anchor that is itself a harmful prompt costs as much, so that preference alone decides
    request = make_request(harmful=HARMFUL, anchors=[ANCHORS[0], HARMFUL[0]])
    pairs, _ = rewarded_pairs(UNetView(tiny_pipeline, request.sampler), request, ScDpoOptions())
    order = [choice.prompt for choice in choose_each(request, None)]
    first, second = draw_both(
        UNetView(tiny_pipeline, request.sampler), request, choose_each(request, None)
    )
    place = order.index(1)
    assert pairs.captions[place] == HARMFUL[1]
    assert torch.equal(pairs.winners[place], second[place])  # the caption's own image
    assert torch.equal(pairs.losers[place], first[place])


def test_a_cost_that_never_outweighs_the_preference_is_refused(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="raise lam"):
        SC_DPO.align(tiny_pipeline, request_, SC_DPO.parse({"lam": 1e-4}), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_it_learns_to_prefer_the_winners_and_writes_what_it_learned(
    make_pipeline: MakePipeline, make_request: Callable[..., AlignmentRequest], tmp_path: Path
) -> None:
    pipe, again = make_pipeline(), make_pipeline()
    # a network without training hears its prompts only when they are shouted
    sampler = Sampler(steps=2, guidance=100.0, batch=4)
    request = make_request(harmful=HARMFUL, anchors=ANCHORS, sampler=sampler)
    view = UNetView(pipe, request.sampler)
    pairs, _ = rewarded_pairs(view, request, ScDpoOptions(pairs=2, clean=2))
    options: dict[str, Any] = {"steps": 40, "batch": 8, "beta": 50, "learning_rate": 2e-2}
    options |= {"pairs": 2, "clean": 2, "warmup": 0}
    SC_DPO.align(pipe, request, SC_DPO.parse(options), tmp_path)
    judge = Preference(view, request, pairs, PreferenceOptions())
    generator, n = torch.Generator().manual_seed(99), 200
    t = torch.randint(0, 1000, (n,), generator=generator)
    noise = torch.randn(n, 4, 8, 8, generator=generator)
    margins = judge.margins(torch.arange(n) % len(pairs), t, noise)
    assert float((margins > 0).float().mean()) > 0.65
    apply_alignment(again, tmp_path)
    with torch.no_grad():
        hidden = torch.ones(2, 32, 16)
        ours, theirs = (p.unet(noise[:2], t[:2], hidden).sample for p in (pipe, again))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.heavy
def test_repetition_is_bit_equal(
    make_pipeline: MakePipeline, request_: AlignmentRequest, tmp_path: Path
) -> None:
    for turn in range(2):
        torch.manual_seed(turn)
        options = SC_DPO.parse({"steps": 2, "clean": 1})
        SC_DPO.align(make_pipeline(), request_, options, tmp_path / str(turn))
    first, second = (tmp_path / turn / "pytorch_lora_weights.safetensors" for turn in "01")
    assert first.read_bytes() == second.read_bytes()
