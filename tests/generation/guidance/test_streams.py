"""Two latent streams: what the blend leaves alone, and what it becomes at its ends."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from guided import PROMPTS, SAMPLER, SCALE, STEPS, blend, latents, with_scheduler
from torch import Tensor

from spqr_checks.generation.conditions import encode
from spqr_checks.generation.guidance.base import attach_guidance
from spqr_checks.generation.guidance.steering.subspace import concept_subspaces

schedulers = pytest.mark.parametrize(
    "scheduler",
    [
        DPMSolverMultistepScheduler,
        DDIMScheduler,
        DDPMScheduler,
        PNDMScheduler,
        EulerDiscreteScheduler,
        EulerAncestralDiscreteScheduler,
        UniPCMultistepScheduler,
        HeunDiscreteScheduler,
    ],
)


class Ungoverned(EulerAncestralDiscreteScheduler):  # type: ignore[misc]
    """Draws its noise from torch's global generator."""

    def step(self, *args: Any, generator: Any = None, **given: Any) -> Any:
        return super().step(*args, **given)


def safe_prompts(pipe: Any) -> dict[str, Any]:
    """The safe embeddings as arguments of the pipeline's own call."""
    parameters = blend()
    tokens, pooled = concept_subspaces(
        pipe, parameters.harmful, parameters.anchors, parameters.rank
    )
    encoded = pipe.encode_prompt(
        PROMPTS,
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt=None,
    )
    given = {"prompt_embeds": tokens.without(encoded[0]), "negative_prompt_embeds": encoded[1]}
    if pooled is not None:
        given["pooled_prompt_embeds"] = pooled.without(encoded[2])
        given["negative_pooled_prompt_embeds"] = encoded[3]
    return given


def blended(pipe: Any, **changes: Any) -> Any:
    again = copy.deepcopy(pipe)
    attach_guidance(again, blend(**changes))
    return again


@pytest.mark.heavy
@schedulers
def test_a_weight_of_zero_changes_no_bit(pipe: Any, scheduler: type[Any]) -> None:
    pipe = with_scheduler(pipe, scheduler)
    assert torch.equal(latents(blended(pipe, weight=0)), latents(pipe))


@pytest.mark.heavy
@schedulers
def test_a_weight_of_one_draws_the_safe_prompt_bit_by_bit(pipe: Any, scheduler: type[Any]) -> None:
    pipe = with_scheduler(pipe, scheduler)
    safe = latents(pipe, **safe_prompts(pipe))
    assert (safe - latents(pipe)).abs().max() > 0.02, "the safe prompt draws nothing else"
    assert torch.equal(latents(blended(pipe, weight=1)), safe)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_noise_from_the_global_generator_is_shared_and_not_used_up(
    pipe: Any, weight: float
) -> None:
    pipe.scheduler = Ungoverned.from_config(pipe.scheduler.config)
    given = safe_prompts(pipe) if weight else {}
    torch.manual_seed(0)
    expected = latents(pipe, **given)
    torch.manual_seed(0)
    assert torch.equal(latents(blended(pipe, weight=weight)), expected)


def test_without_classifier_free_guidance_it_blends_too(pipe: Any) -> None:
    sampler = SAMPLER.model_copy(update={"guidance": 1.0})
    given = {"prompt_embeds": safe_prompts(pipe)["prompt_embeds"]}
    safe = latents(pipe, sampler=sampler, **given)
    assert torch.equal(latents(blended(pipe, weight=1), sampler=sampler), safe)
    assert torch.equal(
        latents(blended(pipe, weight=0), sampler=sampler), latents(pipe, sampler=sampler)
    )


@pytest.mark.parametrize("steps", [2, 5])
def test_a_last_step_alone_is_the_weighted_sum_of_both_images(pipe: Any, steps: int) -> None:
    sampler = SAMPLER.model_copy(update={"steps": steps})
    plain, safe = (latents(pipe, sampler=sampler, **g) for g in ({}, safe_prompts(pipe)))
    last = latents(blended(pipe, weight=0.3, tau=1 - 1 / steps), sampler=sampler)
    assert torch.equal(last, torch.lerp(plain, safe, 0.3))


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler]
)
def test_latents_are_those_of_the_loop_written_out(pipe: Any, scheduler: type[Any]) -> None:
    pipe = with_scheduler(pipe, scheduler)
    weight, first = 0.4, 1
    given = safe_prompts(pipe)
    uncond, wanted = given["negative_prompt_embeds"], encode(pipe, PROMPTS).hidden
    own, other = (scheduler.from_config(pipe.scheduler.config) for _ in range(2))
    z = torch.cat(
        [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    )
    for one in (own, other):
        one.set_timesteps(STEPS)
    z = z * own.init_noise_sigma
    safe = z
    for i, t in enumerate(own.timesteps):
        nexts = []
        for x, one, hidden in ((z, own, wanted), (safe, other, given["prompt_embeds"])):
            scaled = one.scale_model_input(x, t)
            inputs = torch.cat([scaled] * 2), t, torch.cat([uncond, hidden])
            a, b = pipe.unet(*inputs, return_dict=False)[0].chunk(2)
            nexts.append(one.step(a + SCALE * (b - a), t, x, return_dict=False)[0])
        z, safe = nexts
        if i >= first:
            z = weight * safe + (1 - weight) * z
    drawn = latents(blended(pipe, weight=weight, tau=first / STEPS))
    torch.testing.assert_close(drawn, z, atol=1e-4, rtol=1e-4)
    assert (z - latents(pipe)).abs().max() > 0.01
    assert (z - safe).abs().max() > 0.005


@pytest.mark.heavy
def test_only_prompts_close_to_the_concept_are_blended(pipe: Any) -> None:
    prompts = ["a small red triangle", "a green circle on a white background", "a red triangle"]
    parameters = blend()
    tokens, _ = concept_subspaces(pipe, parameters.harmful, parameters.anchors, 2)
    alike = tokens.similarity(encode(pipe, prompts).hidden)
    threshold = float((alike[1] + alike[[0, 2]].min()) / 2)
    assert alike[1] < threshold < alike[[0, 2]].min()
    plain, every = latents(pipe, prompts), latents(blended(pipe), prompts)
    some = latents(blended(pipe, threshold=threshold), prompts)
    assert torch.equal(some[1], plain[1])
    assert torch.equal(some[[0, 2]], every[[0, 2]])
    assert not torch.equal(plain[[0, 2]], every[[0, 2]])
    assert torch.equal(latents(blended(pipe, threshold=0.9999), prompts), plain)


@pytest.mark.heavy
def test_a_prompt_without_a_part_in_the_subspace_is_unchanged(pipe: Any) -> None:
    """Its two streams are one and the same, whatever the weight."""
    hidden = safe_prompts(pipe)["prompt_embeds"]  # nothing of the subspace is left in these
    uncond = safe_prompts(pipe)["negative_prompt_embeds"]
    given = {"prompt_embeds": hidden, "negative_prompt_embeds": uncond}
    plain = latents(pipe, **given)
    for weight in (0.5, 1.0):
        drawn = latents(blended(pipe, weight=weight), **given)
        torch.testing.assert_close(drawn, plain, atol=1e-3, rtol=1e-3)


def test_each_image_of_a_batch_has_its_own_safe_prompt(pipe: Any) -> None:
    guided = blended(pipe)
    together = latents(guided)
    alone = latents(guided, PROMPTS[:1])
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_it_draws_as_often_as_it_must(pipe: Any) -> None:
    def evaluations(one: Any) -> int:
        seen: list[int] = []
        hook = one.unet.register_forward_pre_hook(lambda _m, inputs: seen.append(len(inputs[0])))
        latents(one)
        hook.remove()
        assert set(seen) == {4}
        return len(seen)

    assert evaluations(blended(pipe)) == 2 * STEPS
    assert evaluations(blended(pipe, threshold=0.9999)) == STEPS


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_so_it_is_on_stable_diffusion_xl(xl: Any, weight: float) -> None:
    plain, safe = latents(xl), latents(xl, **safe_prompts(xl))
    assert (safe - plain).abs().max() > 0.01
    assert torch.equal(latents(blended(xl, weight=weight)), safe if weight else plain)


def test_low_precision_stays_low_precision(pipe: Any) -> None:
    pipe.to(torch.bfloat16)
    plain = latents(pipe)
    assert torch.equal(latents(blended(pipe, weight=0)), plain)
    drawn = latents(blended(pipe))
    assert drawn.dtype == torch.bfloat16
    assert not torch.equal(drawn, plain)


def test_a_rescaled_guidance_is_refused(pipe: Any) -> None:
    with pytest.raises(ValueError, match="guidance_rescale"):
        latents(blended(pipe), guidance_rescale=0.5)


def test_it_does_not_blend_after_half_a_step(pipe: Any) -> None:
    """Heun's second evaluation corrects its first; only what both have made is blended."""
    pipe = with_scheduler(pipe, HeunDiscreteScheduler)
    sampler = SAMPLER.model_copy(update={"steps": 2})
    seen: list[list[Tensor]] = [[], []]

    def look(which: int) -> Any:
        def callback(_pipe: Any, _i: int, _t: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
            seen[which].append(given["latents"].clone())
            return given

        return callback

    latents(pipe, sampler=sampler, callback_on_step_end=look(0))
    latents(blended(pipe), sampler=sampler, callback_on_step_end=look(1))
    assert [torch.equal(a, b) for a, b in zip(*seen, strict=True)] == [True, False, False]
