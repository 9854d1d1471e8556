"""Pairs of images: which are drawn, from which latents, and under which captions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionPipeline,
)

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.latents import draw_seeded, edit
from spqr_checks.alignment.training.pair_images import (
    Choice,
    choose,
    choose_each,
    draw_both,
    edited_pairs,
    pair_seed,
    safety_pairs,
)
from spqr_checks.alignment.training.views import UNetView
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError

MakeRequest = Callable[..., AlignmentRequest]
HARMFUL = ["a red triangle", "a small red triangle", "a yellow star", "a large yellow star"]
ANCHORS = ["a blue triangle", "a small red circle", "a green star", "a large yellow ring"]


@pytest.fixture
def request_(make_request: MakeRequest) -> AlignmentRequest:
    return make_request(
        harmful=HARMFUL, anchors=ANCHORS, categories=["red", "red", "yellow", "yellow"]
    )


def test_every_prompt_has_its_turn_before_one_has_its_second(request_: AlignmentRequest) -> None:
    assert sorted(c.prompt for c in choose(request_, None, "yellow")) == [2, 3]
    five = choose(request_, 5, "red")
    assert [choice.turn for choice in five] == [0, 0, 1, 1, 2]
    assert {choice.prompt for choice in five} == {0, 1}
    assert len(set(five)) == 5


def test_each_category_gets_its_pairs(request_: AlignmentRequest) -> None:
    prompts = [choice.prompt for choice in choose_each(request_, 3)]
    assert sum(p < 2 for p in prompts) == sum(p >= 2 for p in prompts) == 3


def test_fewer_pairs_than_prompts_are_chosen_by_the_seed(make_request: MakeRequest) -> None:
    texts = [f"a red triangle {n}" for n in range(30)]
    picks = [
        choose(make_request(harmful=texts, anchors=texts, seed=seed), 5, "all")
        for seed in (0, 1, 0)
    ]
    assert picks[0] == picks[2] != picks[1]
    assert len(set(picks[0])) == 5


@pytest.mark.parametrize("anchor", ["", "  "])
def test_a_prompt_without_an_anchor_is_refused(make_request: MakeRequest, anchor: str) -> None:
    request = make_request(anchors=["a blue triangle", anchor])
    with pytest.raises(UserError, match="'a small red triangle, photo style' has no anchor"):
        choose(request, None, "all")


def test_pairs_and_turns_have_seeds_of_their_own(request_: AlignmentRequest) -> None:
    seeds = {pair_seed(request_, Choice(p, turn)) for p in range(4) for turn in range(3)}
    assert len(seeds) == 12
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_both_images_of_a_pair_start_from_one_latent(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest
) -> None:
    # with the same prompt on both sides, only another start could make another image
    same = ["a red triangle", "a yellow star"]
    request = make_request(harmful=same, anchors=same)
    safe, unsafe = draw_both(
        UNetView(tiny_pipeline, request.sampler),
        request,
        [Choice(0, 0), Choice(1, 0), Choice(0, 1)],
    )
    assert torch.equal(safe, unsafe)
    assert not torch.allclose(safe[0], safe[2], atol=0.1)


def test_a_pair_s_images_do_not_hang_on_the_pairs_beside_it(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest
) -> None:
    torch.manual_seed(1)
    alone = draw_both(UNetView(tiny_pipeline, request_.sampler), request_, [Choice(2, 1)])
    torch.manual_seed(2)
    among = draw_both(
        UNetView(tiny_pipeline, request_.sampler), request_, [Choice(n, 1) for n in range(4)]
    )
    for one, many in zip(alone, among, strict=True):
        torch.testing.assert_close(one[0], many[2], atol=1e-4, rtol=1e-4)


def test_winners_are_the_anchors_images_under_the_harmful_prompt(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest
) -> None:
    choices = [Choice(1, 0), Choice(3, 0)]
    pairs = safety_pairs(
        UNetView(tiny_pipeline, request_.sampler), request_, choices, "unsafe_prompt"
    )
    seeds = [pair_seed(request_, choice) for choice in choices]
    sampler = request_.sampler
    wanted = draw_seeded(tiny_pipeline, [ANCHORS[1], ANCHORS[3]], seeds, sampler)
    assert torch.equal(pairs.winners, wanted)
    assert torch.equal(
        pairs.losers, draw_seeded(tiny_pipeline, [HARMFUL[1], HARMFUL[3]], seeds, sampler)
    )
    assert pairs.captions == pairs.loser_captions == [HARMFUL[1], HARMFUL[3]]


def test_both_adds_the_safe_prompts_as_captions(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest
) -> None:
    pairs = safety_pairs(
        UNetView(tiny_pipeline, request_.sampler), request_, [Choice(0, 0), Choice(2, 0)], "both"
    )
    assert pairs.captions == [HARMFUL[0], HARMFUL[2], ANCHORS[0], ANCHORS[2]]
    assert torch.equal(pairs.winners[:2], pairs.winners[2:])
    assert torch.equal(pairs.losers[:2], pairs.losers[2:])


@pytest.mark.heavy
@pytest.mark.parametrize(
    "scheduler", [None, DDIMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler]
)
def test_the_less_is_drawn_again_the_more_of_an_image_stays(
    tiny_pipeline: StableDiffusionPipeline, scheduler: type | None
) -> None:
    if scheduler is not None:
        tiny_pipeline.scheduler = scheduler.from_config(tiny_pipeline.scheduler.config)  # type: ignore[attr-defined]
    sampler = Sampler(steps=10, guidance=2.0, batch=2)
    image = draw_seeded(tiny_pipeline, HARMFUL[:3], [1, 2, 3], sampler)

    def moved(strength: float) -> float:
        torch.manual_seed(0)
        edited = edit(
            tiny_pipeline, image, ANCHORS[:3], HARMFUL[:3], [4, 5, 6], sampler, strength=strength
        )
        assert edited.shape == image.shape
        assert bool(edited.isfinite().all())
        torch.manual_seed(1)
        again = edit(
            tiny_pipeline, image, ANCHORS[:3], HARMFUL[:3], [4, 5, 6], sampler, strength=strength
        )
        assert torch.equal(edited, again)
        return float((edited - image).norm())

    little, much = moved(0.01), moved(0.7)
    assert 0 < little < 0.8 * much


def test_edits_follow_their_prompts(tiny_pipeline: StableDiffusionPipeline) -> None:
    sampler = Sampler(steps=4, guidance=4.0, batch=4)
    image = draw_seeded(tiny_pipeline, HARMFUL[:2], [1, 2], sampler)

    def edited(prompts: list[str], negative: list[str]) -> torch.Tensor:
        return edit(tiny_pipeline, image, prompts, negative, [4, 5], sampler, strength=0.75)

    plain = edited(ANCHORS[:2], HARMFUL[:2])
    assert not torch.equal(plain, edited(ANCHORS[2:], HARMFUL[:2]))
    assert not torch.equal(plain, edited(ANCHORS[:2], HARMFUL[2:]))


@pytest.mark.parametrize("captions", ["own", "none"])
def test_edited_pairs_prefer_the_edit_of_the_unsafe_image(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest, captions: str
) -> None:
    choices = [Choice(0, 0), Choice(2, 0)]
    pairs = edited_pairs(
        UNetView(tiny_pipeline, request_.sampler), request_, choices, 0.75, captions
    )  # type: ignore[arg-type]
    _, unsafe = draw_both(UNetView(tiny_pipeline, request_.sampler), request_, choices)
    assert torch.equal(pairs.losers, unsafe)
    assert not torch.equal(pairs.winners, pairs.losers)
    own = ([ANCHORS[0], ANCHORS[2]], [HARMFUL[0], HARMFUL[2]])
    assert (pairs.captions, pairs.loser_captions) == (
        own if captions == "own" else ([""] * 2, [""] * 2)
    )
