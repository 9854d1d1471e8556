"""Pools of latents: what is drawn, how often, and what is picked."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.training.latents import draw
from spqr_checks.alignment.training.pools import Pool, draw_pool
from spqr_checks.choices import Sampler

SAMPLER = Sampler(steps=2, guidance=2.0, batch=8)
PROMPTS = ["a circle", "a star", "a moon"]


def pool(pipe: StableDiffusionPipeline, size: int, *, fill: bool = False, seed: int = 0) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    return draw_pool(
        pipe, PROMPTS, size, SAMPLER, guidance=2.0, seed=9, generator=generator, fill=fill
    )


def test_a_large_pool_shows_every_prompt_once(tiny_pipeline: StableDiffusionPipeline) -> None:
    drawn = pool(tiny_pipeline, 10)
    assert drawn.shows.tolist() == [0, 1, 2]
    assert torch.equal(drawn.latents, draw(tiny_pipeline, PROMPTS, SAMPLER, 2.0, 9))


def test_a_small_pool_shows_some_prompts_in_their_order(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    seen = {tuple(pool(tiny_pipeline, 2, seed=seed).shows.tolist()) for seed in range(12)}
    assert seen == {(0, 1), (0, 2), (1, 2)}


def test_a_filled_pool_shows_prompts_several_times_but_no_image_twice(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    drawn = pool(tiny_pipeline, 5, fill=True)
    assert drawn.shows.tolist() == [0, 1, 2, 0, 1]
    assert len(drawn) == 5
    assert len({tuple(z.flatten().tolist()) for z in drawn.latents}) == 5


@pytest.mark.parametrize("size", [1, 3])
def test_filling_changes_nothing_where_prompts_are_enough(
    tiny_pipeline: StableDiffusionPipeline, size: int
) -> None:
    plain, filled = (pool(tiny_pipeline, size, fill=fill) for fill in (False, True))
    assert torch.equal(plain.shows, filled.shows)
    assert torch.equal(plain.latents, filled.latents)


def test_what_is_picked_are_latents_with_what_they_show() -> None:
    made = Pool(torch.arange(5.0).reshape(5, 1, 1, 1) * 10, torch.tensor([7, 3, 3, 0, 2]))
    shown, latents = made.at(torch.tensor([4, 0]))
    assert shown.tolist() == [2, 7]
    assert latents.flatten().tolist() == [40, 0]
    shown, latents = made.pick(300, torch.Generator().manual_seed(0))
    assert set(latents.flatten().tolist()) == {0, 10, 20, 30, 40}
    assert torch.equal(made.shows[(latents.flatten() / 10).long()], shown)
