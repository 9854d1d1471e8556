"""Latents: drawn by the pipeline, noised again, drawn part of the way, and picked from pools."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)

from spqr_checks.alignment.training.latents import Pool, draw, draw_partly, draw_pool
from spqr_checks.alignment.training.noising import Noiser
from spqr_checks.alignment.training.unet import Predictor
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.finetuning.objectives import Denoising
from spqr_checks.generation.conditions import encode

SAMPLER = Sampler(steps=4, guidance=2.0, batch=3)
POOLED = Sampler(steps=2, guidance=2.0, batch=8)
PROMPTS = ["a circle", "a star", "a moon"]


def test_finished_latents_are_those_of_the_pipeline(tiny_pipeline: StableDiffusionPipeline) -> None:
    prompts = ["a circle", "a star", "a moon", "a tree"]
    drawn = draw(tiny_pipeline, prompts, SAMPLER, 2.0, seed=5)
    expected = tiny_pipeline(
        prompts[3:],
        num_inference_steps=4,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(5 + 3),
        output_type="latent",
    ).images
    assert drawn.shape == (4, 4, 8, 8)
    torch.testing.assert_close(drawn[3:], expected)


def test_noising_is_the_forward_process(tiny_pipeline: StableDiffusionPipeline) -> None:
    noiser = Noiser(Denoising(tiny_pipeline))
    z = torch.full((500, 1, 2, 2), 3.0)
    x, t = noiser(z, torch.Generator().manual_seed(0))
    alpha = torch.cumprod(1 - DDPMScheduler.from_config(tiny_pipeline.scheduler.config).betas, 0)[
        t
    ][:, None, None, None]
    noise = (x - alpha.sqrt() * z) / (1 - alpha).sqrt()
    assert abs(noise.mean().item()) < 0.1
    assert abs(noise.std().item() - 1) < 0.1
    assert t.min() < 30
    assert t.max() > 970
    again, t_again = noiser(z, torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
    assert torch.equal(t, t_again)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_truth_gives_back_the_image(tiny_pipeline: StableDiffusionPipeline, kind: str) -> None:
    scheduler = tiny_pipeline.scheduler
    tiny_pipeline.scheduler = type(scheduler).from_config(scheduler.config, prediction_type=kind)
    noiser = Noiser(Denoising(tiny_pipeline))
    z = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    x, t, truth = noiser.with_truth(z, torch.Generator().manual_seed(0))
    alpha = torch.cumprod(1 - DDPMScheduler.from_config(tiny_pipeline.scheduler.config).betas, 0)[
        t
    ][:, None, None, None]
    a, s = alpha.sqrt(), (1 - alpha).sqrt()
    image = (x - s * truth) / a if kind == "epsilon" else a * x - s * truth
    torch.testing.assert_close(image, z, atol=1e-3, rtol=1e-3)
    plain = noiser(z, torch.Generator().manual_seed(0))
    assert torch.equal(x, plain[0])
    assert torch.equal(t, plain[1])


def test_there_is_no_truth_for_a_network_that_predicts_images(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    scheduler = tiny_pipeline.scheduler
    tiny_pipeline.scheduler = type(scheduler).from_config(
        scheduler.config, prediction_type="sample"
    )
    with pytest.raises(UserError, match="predicts 'sample'"):
        Noiser(Denoising(tiny_pipeline)).with_truth(torch.zeros(1, 4, 8, 8), torch.Generator())


def partly(
    pipe: StableDiffusionPipeline, seed: int, **where: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_partly(
        pipe,
        Predictor(pipe, SAMPLER),
        pipe.unet,
        encode(pipe, ["a circle", "a red star"]),
        encode(pipe, [""]),
        steps=4,
        guidance=2.0,
        generator=torch.Generator().manual_seed(seed),
        **where,
    )


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("margins", "steps"), [((0, 0), 4), ((1, 0), 3), ((1, 1), 2), ((1, 9), 1), ((9, 0), 1)]
)
def test_margins_are_never_stopped_at(
    tiny_pipeline: StableDiffusionPipeline, margins: tuple[int, int], steps: int
) -> None:
    found = {int(partly(tiny_pipeline, seed, margins=margins)[1][0]) for seed in range(20)}
    tiny_pipeline.scheduler.set_timesteps(4)
    times = tiny_pipeline.scheduler.timesteps.tolist()
    first = min(margins[0], 3)
    assert found == set(times[first : first + steps])
    x, t = partly(tiny_pipeline, 0, at=times[2])
    again, _ = partly(tiny_pipeline, 0, at=times[3])
    assert t.tolist() == [times[2]] * 2
    assert not torch.equal(x, again)


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_partly_drawn_latents_are_those_on_the_pipeline_s_own_way(
    tiny_pipeline: StableDiffusionPipeline, scheduler: Any
) -> None:
    tiny_pipeline.scheduler = scheduler()
    stops = set()
    for seed in range(6):
        x, t = partly(tiny_pipeline, seed)
        # the same initial noise, taken through the pipeline itself
        generator = torch.Generator().manual_seed(seed)
        stop = int(torch.randint(0, 4, (1,), generator=generator))
        noise = torch.randn((2, 4, 8, 8), generator=generator)
        on_the_way: list[torch.Tensor] = []

        def note(_pipe: Any, _step: int, _t: Any, values: Any, kept: Any = on_the_way) -> Any:
            kept.append(values["latents"])
            return values

        tiny_pipeline(
            ["a circle", "a red star"],
            num_inference_steps=4,
            guidance_scale=2.0,
            latents=noise,
            output_type="latent",
            callback_on_step_end=note,
        )
        fresh = scheduler()
        fresh.set_timesteps(4)
        now = fresh.timesteps[stop]
        there = on_the_way[stop - 1] if stop else noise * fresh.init_noise_sigma
        seen = fresh.scale_model_input(there, now)  # what the network is given
        torch.testing.assert_close(x, seen, atol=1e-4, rtol=1e-4)
        assert t.tolist() == [now] * 2
        stops.add(stop)
    assert len(stops) > 1


def test_image_size_follows_the_sampler(tiny_pipeline: StableDiffusionPipeline) -> None:
    assert Predictor(tiny_pipeline, SAMPLER).shape == (4, 8, 8)
    wide = Sampler(steps=1, height=16, width=32)
    assert Predictor(tiny_pipeline, wide).shape == (4, 8, 16)
    assert draw(tiny_pipeline, ["a"], wide, 1.0, 0).shape == (1, 4, 8, 16)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_guidance_reaches_the_drawing(
    tiny_pipeline: StableDiffusionPipeline, guidance: float
) -> None:
    other = draw(tiny_pipeline, ["a red circle"], SAMPLER, 7.0, 0)
    assert not torch.equal(draw(tiny_pipeline, ["a red circle"], SAMPLER, guidance, 0), other)


def pool(pipe: StableDiffusionPipeline, size: int, *, fill: bool = False, seed: int = 0) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    return draw_pool(
        pipe, PROMPTS, size, POOLED, guidance=2.0, seed=9, generator=generator, fill=fill
    )


def test_a_large_pool_shows_every_prompt_once(tiny_pipeline: StableDiffusionPipeline) -> None:
    drawn = pool(tiny_pipeline, 10)
    assert drawn.shows.tolist() == [0, 1, 2]
    assert torch.equal(drawn.latents, draw(tiny_pipeline, PROMPTS, POOLED, 2.0, 9))


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
