"""Transformers' finished latents: drawn with a seed for each image, and edited by SDEdit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_classes import SIZE, sampler
from torch import Tensor

from spqr_checks.alignment.method import transformer_family
from spqr_checks.alignment.training.transformer import TransformerView
from spqr_checks.models.pipelines import load_pipeline

KINDS = ("sd3", "flux", "flux-schnell", "pixart")
TEXTS, OTHERS = ["a red triangle", "a blue circle"], ["a green star", "a yellow square"]
STEPS = 4


@pytest.fixture(scope="module")
def loaded(real_class: Callable[[str], Path]) -> Callable[[str], Any]:
    """Pipelines, each loaded once; not to be changed."""
    return cache(lambda kind: load_pipeline(str(real_class(kind))))


def view_of(pipe: Any, kind: str) -> TransformerView:
    return TransformerView(pipe, sampler(kind), transformer_family(pipe, "duo"))


def normal(n: int, channels: int, seed: int = 0) -> Tensor:
    return torch.randn((n, channels, 8, 8), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_the_pipeline_s_own_and_hangs_on_its_seed_alone(
    loaded: Callable[[str], Any], kind: str
) -> None:
    pipe = loaded(kind)
    view, settings = view_of(pipe, kind), sampler(kind, batch=2)
    both = view.draw_seeded([*TEXTS, TEXTS[0]], [7, 8, 7], settings)
    assert both.shape == (3, *view.shape)
    torch.testing.assert_close(both[0], both[2], atol=1e-4, rtol=1e-4)
    drawn = pipe(
        TEXTS[1],
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(8),
        output_type="latent",
        **({"use_resolution_binning": False, "clean_caption": False} if kind == "pixart" else {}),
    ).images
    drawn, _ = view.family.seen(drawn, torch.zeros(1), (8, 8))
    torch.testing.assert_close(both[1:2], drawn, atol=1e-4, rtol=1e-4)


def written_out(
    pipe: Any, view: TransformerView, kind: str, clean: Tensor, again: int, guidance: float
) -> Tensor:
    """SDEdit as a loop over the scheduler's last steps."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    flux = {"sigmas": np.linspace(1.0, 1 / STEPS, STEPS)} if kind == "flux-schnell" else {}
    scheduler.set_timesteps(STEPS, **flux)
    first = STEPS - again
    noise = torch.cat([normal(1, clean.shape[1], seed) for seed in (4, 5)])
    scheduler.set_begin_index(first)
    t = scheduler.timesteps[first].expand(2)
    x = view.noiser.objective.noisy(clean, noise, t)
    wanted, without = view.encode(TEXTS), view.encode(OTHERS)
    for now in scheduler.timesteps[first:]:
        e_c = view.predictor(pipe.transformer, x, now.expand(2), wanted)
        if kind != "flux-schnell":
            e_n = view.predictor(pipe.transformer, x, now.expand(2), without)
            e_c = e_n + guidance * (e_c - e_n)
        x = scheduler.step(e_c, now, x, return_dict=False)[0]
    return x


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd3", "flux-schnell", "pixart"])
@pytest.mark.parametrize("again", [1, 3, STEPS])
def test_an_edit_is_the_last_steps_from_the_noised_image_away_from_the_negative_prompt(
    loaded: Callable[[str], Any], kind: str, again: int
) -> None:
    pipe = loaded(kind)
    view, settings = view_of(pipe, kind), sampler(kind, steps=STEPS)
    clean, own = normal(2, view.shape[0], 9), pipe.scheduler
    edited = view.edit(clean, TEXTS, OTHERS, [4, 5], settings, strength=again / STEPS)
    expected = written_out(pipe, view, kind, clean, again, settings.guidance)
    torch.testing.assert_close(edited, expected, atol=1e-4, rtol=1e-4)
    assert pipe.scheduler is own
    # the negative prompt has a place where there is guidance
    other = view.edit(clean, TEXTS, TEXTS, [4, 5], settings, strength=again / STEPS)
    assert torch.equal(edited, other) == (kind == "flux-schnell")


def test_an_edit_from_noise_alone_is_a_drawing_at_the_sampler_s_guidance(
    loaded: Callable[[str], Any],
) -> None:
    pipe = loaded("flux")  # its times hang on the size of the image
    view, settings = view_of(pipe, "flux"), sampler("flux", batch=1)
    clean = normal(2, view.shape[0], 9)
    edited = view.edit(clean, TEXTS, OTHERS, [4, 5], settings, strength=1.0)
    drawn = view.draw_seeded(TEXTS, [4, 5], settings)
    torch.testing.assert_close(edited, drawn, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(
        view.edit(clean, TEXTS, OTHERS, [4, 5], settings, strength=0.5), drawn, atol=1e-2
    )
