"""Guidance is carried by a pipeline, works only where images are drawn, and leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
from guided import PROMPTS, SAMPLER, blend, latents, sld

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import Guidance, attach_guidance, guidance_of, guiding
from spqr_checks.generation.sampling import GenerationError, generate

both = pytest.mark.parametrize("guidance", [sld(), blend()])
SEEDS = [0, 1]


def pixels(pipe: Any, **changes: Any) -> np.ndarray:
    images = generate(pipe, PROMPTS, SEEDS, SAMPLER.model_copy(update=changes))
    return np.stack([np.asarray(image) for image in images])


@both
def test_images_are_guided_and_weights_are_not_changed(pipe: Any, guidance: Guidance) -> None:
    plain, before = pixels(pipe), copy.deepcopy(pipe.unet.state_dict())
    attach_guidance(pipe, guidance)
    assert guidance_of(pipe) == guidance
    guided = pixels(pipe)
    assert not np.array_equal(guided, plain)
    assert np.array_equal(guided, pixels(pipe)), "another call gave other images"
    assert all(torch.equal(before[k], v) for k, v in pipe.unet.state_dict().items())


@both
def test_nothing_is_left_hooked(pipe: Any, guidance: Guidance) -> None:
    attach_guidance(pipe, guidance)
    for _ in range(2):
        with guiding(pipe, SAMPLER):
            assert pipe.unet._forward_hooks
        assert not pipe.unet._forward_hooks
        assert "step" not in vars(pipe.scheduler)
    with pytest.raises(ZeroDivisionError), guiding(pipe, SAMPLER):
        raise ZeroDivisionError
    assert not pipe.unet._forward_hooks
    assert "step" not in vars(pipe.scheduler)


@both
def test_outside_of_drawing_the_network_is_the_bare_one(pipe: Any, guidance: Guidance) -> None:
    inputs = torch.randn(2, 4, 8, 8), torch.tensor(500), torch.randn(2, 32, 16)
    with torch.no_grad():
        before = pipe.unet(*inputs).sample
        attach_guidance(pipe, guidance)
        assert torch.equal(pipe.unet(*inputs).sample, before)


def test_a_pipeline_without_guidance_is_left_alone(pipe: Any) -> None:
    assert guidance_of(pipe) is None
    with guiding(pipe, SAMPLER):
        assert not pipe.unet._forward_hooks


def test_a_copied_pipeline_is_guided_by_itself(pipe: Any) -> None:
    attach_guidance(pipe, sld())
    guided = latents(pipe)
    assert torch.equal(latents(copy.deepcopy(pipe)), guided)


def test_two_guidances_are_one_too_many(pipe: Any) -> None:
    attach_guidance(pipe, sld())
    with pytest.raises(ValueError, match="carries a guidance already"):
        attach_guidance(pipe, blend())


@both
def test_another_kind_of_pipeline_is_refused(pipe: Any, guidance: Guidance) -> None:
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    with pytest.raises(UserError, match="is a StableDiffusionImg2ImgPipeline"):
        attach_guidance(other, guidance)
    assert guidance_of(other) is None


def test_a_sampler_that_guidance_cannot_work_with_is_the_user_s_mistake(pipe: Any) -> None:
    attach_guidance(pipe, sld())
    with pytest.raises(UserError, match="guidance > 1"):
        pixels(pipe, guidance=1.0)
    with pytest.raises(UserError, match="warm-up"):
        pixels(pipe, steps=1)


@both
def test_a_broken_extra_evaluation_is_seen_even_where_it_shows_in_no_image(
    pipe: Any, guidance: Guidance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The evaluation that guidance adds is watched like the pipeline's own."""
    from spqr_checks.generation.guidance.steering.evaluation import Evaluation

    again = Evaluation.again

    def broken(self: Evaluation, sample: Any, hidden: Any, *rest: Any) -> Any:
        again(self, sample, torch.full_like(hidden, float("nan")), *rest)
        return again(self, sample, hidden, *rest)

    monkeypatch.setattr(Evaluation, "again", broken)
    attach_guidance(pipe, guidance)
    with pytest.raises(GenerationError, match="NaN or infinity"):
        pixels(pipe)


@both
def test_a_pipeline_cannot_be_called_twice_under_one_guiding(pipe: Any, guidance: Guidance) -> None:
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    attach_guidance(pipe, guidance)
    with torch.inference_mode(), guiding(pipe, SAMPLER):
        pipe(PROMPTS, num_inference_steps=2, guidance_scale=3.0, output_type="latent")
        with pytest.raises(RuntimeError, match="one whole call"):
            pipe(PROMPTS, num_inference_steps=2, guidance_scale=3.0, output_type="latent")
