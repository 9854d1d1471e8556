"""Paired, seeded, batched sampling; and every way in which it must refuse."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler, StableDiffusionPipeline
from fake_pipelines import Distilled, FakePipeline, Ungoverned, Unguided

from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation.sampling import (
    GenerationError,
    draw,
    generate,
    generation_recipe,
    image_seed,
)

SAMPLER = Sampler(steps=2, guidance=3.0, batch=3)
PROMPTS = ["a red circle", "a blue star", "a green tree", "a red circle", "a pink ring"]
SEEDS = [0, 0, 1, 1, 7]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded(tiny_pipeline_dir: Path) -> StableDiffusionPipeline:
    return DiffusionPipeline.from_pretrained(tiny_pipeline_dir, safety_checker=None)


@pytest.fixture
def pipe(loaded: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A pipeline of its own for every test."""
    parts = {name: copy.deepcopy(part) for name, part in loaded.components.items()}
    return StableDiffusionPipeline(**parts, requires_safety_checker=False)


def pixels(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def first_latents(pipe: Any, prompts: list[str], seeds: list[int], sampler: Sampler) -> Any:
    """What the denoiser is given at the first step of every batch, one latent per image."""
    seen: list[torch.Tensor] = []

    def look(_module: Any, inputs: Any) -> None:
        seen.append(inputs[0])

    hook = pipe.unet.register_forward_pre_hook(look)
    try:
        generate(pipe, prompts, seeds, sampler)
    finally:
        hook.remove()
    first = seen[:: sampler.steps]
    return torch.cat([latent.chunk(2)[0] if sampler.guidance > 1 else latent for latent in first])


class TestPairing:
    def test_latents_are_equal_in_two_states(self, pipe: Any) -> None:
        before = first_latents(pipe, PROMPTS, SEEDS, SAMPLER)
        plain = pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER))
        with torch.no_grad():
            for parameter in pipe.unet.parameters():
                parameter.add_(0.1)
        assert torch.equal(before, first_latents(pipe, PROMPTS, SEEDS, SAMPLER))
        assert not np.array_equal(plain, pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER)))

    def test_latents_do_not_depend_on_batch_order_or_guidance(self, pipe: Any) -> None:
        latents = first_latents(pipe, PROMPTS, SEEDS, SAMPLER)
        order = [3, 0, 4, 2, 1]
        other = first_latents(
            pipe,
            [PROMPTS[i] for i in order],
            [SEEDS[i] for i in order],
            SAMPLER.model_copy(update={"batch": 2, "guidance": 1.0}),
        )
        assert torch.equal(latents[order], other)

    def test_another_seed_changes_only_its_own_latent(self, pipe: Any) -> None:
        latents = first_latents(pipe, PROMPTS, SEEDS, SAMPLER)
        changed = first_latents(pipe, PROMPTS, [0, 0, 2, 1, 7], SAMPLER)
        same = [torch.equal(a, b) for a, b in zip(latents, changed, strict=True)]
        assert same == [True, True, False, True, True]

    def test_the_same_seed_gives_other_prompts_other_latents(self, pipe: Any) -> None:
        latents = first_latents(pipe, PROMPTS[:2], [0, 0], SAMPLER)
        assert not torch.equal(latents[0], latents[1])

    def test_prompt_and_seed_cannot_be_confused(self) -> None:
        assert image_seed("1 a", 1) != image_seed(" a", 11)
        assert 0 <= image_seed("a", -3) < 2**63


class TestRepetition:
    def test_images_are_bit_identical_whatever_was_drawn_before(self, pipe: Any) -> None:
        once = pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER))
        torch.manual_seed(99)
        generate(pipe, PROMPTS[:1], [5], SAMPLER.model_copy(update={"steps": 3}))
        assert np.array_equal(once, pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER)))

    @pytest.mark.parametrize("heeds_generators", [True, False])
    def test_so_they_are_with_a_scheduler_that_adds_noise(
        self, pipe: Any, heeds_generators: bool
    ) -> None:
        pipe.scheduler = EulerAncestralDiscreteScheduler() if heeds_generators else Ungoverned()
        torch.manual_seed(1)
        once = pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER))
        torch.manual_seed(2)
        assert np.array_equal(once, pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER)))

    def test_a_batch_does_not_depend_on_the_other_batches(self, pipe: Any) -> None:
        whole = pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER))
        assert np.array_equal(whole[3:], pixels(generate(pipe, PROMPTS[3:], SEEDS[3:], SAMPLER)))
        swapped = generate(
            pipe, PROMPTS[3:] * 2, SEEDS[3:] * 2, SAMPLER.model_copy(update={"batch": 2})
        )
        assert np.array_equal(whole[3:], pixels(swapped)[2:])

    def test_batches_are_consecutive_and_the_last_may_be_shorter(self, pipe: Any) -> None:
        sizes: list[int] = []
        hook = pipe.text_encoder.register_forward_pre_hook(
            lambda _m, inputs, kwargs: sizes.append(len((inputs or (kwargs["input_ids"],))[0])),
            with_kwargs=True,
        )
        generate(pipe, PROMPTS, SEEDS, SAMPLER.model_copy(update={"guidance": 1.0}))
        hook.remove()
        assert sizes == [3, 2]

    def test_it_leaves_the_scheduler_and_the_global_generator_alone(self, pipe: Any) -> None:
        own = pipe.scheduler
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        generate(pipe, PROMPTS[:1], [0], SAMPLER)
        assert torch.equal(expected, torch.rand(2))
        assert pipe.scheduler is own
        assert own.num_inference_steps is None, "the pipeline's own scheduler was used"

    def test_dropout_is_off(self, pipe: Any) -> None:
        once = pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER))
        for module in pipe.unet.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.9
        pipe.unet.train()
        assert np.array_equal(once, pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER)))

    @pytest.mark.slow
    def test_another_process_draws_the_same_bytes(
        self, pipe: Any, tiny_pipeline_dir: Path, tmp_path: Path
    ) -> None:
        code = f"""
import hashlib, numpy, torch
from diffusers import DiffusionPipeline
from spqr_checks.generation.sampling import generate
from spqr_checks.choices import Sampler
torch.set_num_threads(1)
pipe = DiffusionPipeline.from_pretrained({str(tiny_pipeline_dir)!r}, safety_checker=None)
images = generate(pipe, {PROMPTS!r}, {SEEDS!r}, Sampler(steps=2, guidance=3.0, batch=3))
print(b"".join(i.tobytes() for i in images).hex())
"""
        command = [sys.executable, "-W", "ignore", "-c", code]
        out = forked.run(command, tmp_path, os.environ, timeout=240)
        assert out.returncode == 0, out.stderr
        here = b"".join(image.tobytes() for image in generate(pipe, PROMPTS, SEEDS, SAMPLER))
        assert out.stdout.split()[-1] == here.hex()


class TestImages:
    def test_they_are_rgb_of_the_asked_size(self, pipe: Any) -> None:
        sampler = SAMPLER.model_copy(update={"height": 32, "width": 24})
        images = generate(pipe, PROMPTS[:2], [0, 1], sampler)
        assert [(image.mode, image.size) for image in images] == [("RGB", (24, 32))] * 2

    def test_they_are_what_the_pipeline_itself_draws(self, pipe: Any) -> None:
        drawn = generate(pipe, PROMPTS[:2], [0, 1], SAMPLER)
        generators = [
            torch.Generator().manual_seed(image_seed(p, s))
            for p, s in zip(PROMPTS[:2], [0, 1], strict=True)
        ]
        expected = pipe(
            PROMPTS[:2], num_inference_steps=2, guidance_scale=3.0, generator=generators
        ).images
        assert np.array_equal(pixels(drawn), pixels(expected))

    def test_a_negative_prompt_changes_them(self, pipe: Any) -> None:
        negative = SAMPLER.model_copy(update={"negative_prompt": "a black background"})
        plain = pixels(generate(pipe, PROMPTS, SEEDS, SAMPLER))
        assert not np.array_equal(plain, pixels(generate(pipe, PROMPTS, SEEDS, negative)))

    def test_no_prompts_give_no_images(self, pipe: Any) -> None:
        assert generate(pipe, [], [], SAMPLER) == []

    def test_every_prompt_needs_a_seed(self, pipe: Any) -> None:
        with pytest.raises(ValueError, match="2 prompts but 1 seeds"):
            generate(pipe, PROMPTS[:2], [0], SAMPLER)


class TestFailures:
    def test_nan_weights(self, pipe: Any) -> None:
        with torch.no_grad():
            pipe.unet.conv_out.bias.fill_(float("nan"))
        with pytest.raises(GenerationError, match="NaN"):
            generate(pipe, PROMPTS[:1], [0], SAMPLER)

    @pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
    def test_an_overflowing_decoder_even_where_the_range_clamp_hides_it(
        self, pipe: Any, value: float
    ) -> None:
        with torch.no_grad():
            pipe.vae.decoder.conv_out.bias[1] = value
        with pytest.raises(GenerationError, match="NaN or infinity"):
            generate(pipe, PROMPTS[:1], [0], SAMPLER)

    def test_no_hook_stays_behind(self, pipe: Any) -> None:
        generate(pipe, PROMPTS[:1], [0], SAMPLER)
        assert not pipe.unet._forward_hooks
        assert not pipe.vae.decoder._forward_hooks

    def test_an_exception_names_its_kind(self, pipe: Any) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("out of memory")

        pipe.unet.forward = broken
        with pytest.raises(GenerationError, match="batch of 1 prompts: RuntimeError: out of mem"):
            generate(pipe, PROMPTS[:1], [0], SAMPLER)

    @pytest.mark.parametrize("shape", [(1, 4, 4, 3), (3, 4, 4, 3), (2, 4, 4, 1), (0,)])
    def test_another_number_or_kind_of_images(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(GenerationError, match="for 2 prompts"):
            generate(FakePipeline(np.zeros(shape)), PROMPTS[:2], [0, 1], SAMPLER)

    def test_nan_in_the_images_of_a_pipeline_without_known_networks(self) -> None:
        images = np.zeros((2, 4, 4, 3))
        images[1, 2, 2, 0] = np.nan
        with pytest.raises(GenerationError, match="NaN"):
            generate(FakePipeline(images), PROMPTS[:2], [0, 1], SAMPLER)

    def test_a_pipeline_that_ignores_its_generators(self) -> None:
        class Deaf(FakePipeline):
            def __call__(  # type: ignore[override]
                self,
                prompt: Any,
                generator: Any,
                output_type: str,
                num_inference_steps: int,
                guidance_scale: float,
            ) -> Deaf:
                torch.randn(1, generator=generator[0])
                return self

        assert len(generate(Deaf(np.zeros((1, 4, 4, 3))), PROMPTS[:1], [0], SAMPLER)) == 1
        with pytest.raises(GenerationError, match="not decided by prompt and seed"):
            generate(Deaf(np.zeros((2, 4, 4, 3))), PROMPTS[:2], [0, 1], SAMPLER)


class TestSettingsThatAPipelineCannotTake:
    def test_a_safety_checker_would_blacken_images(self, pipe: Any) -> None:
        pipe.safety_checker = torch.nn.Identity()
        with pytest.raises(UserError, match="safety checker"):
            generate(pipe, PROMPTS[:1], [0], SAMPLER)

    def test_half_a_size(self, pipe: Any) -> None:
        with pytest.raises(UserError, match="go together"):
            generate(pipe, PROMPTS[:1], [0], SAMPLER.model_copy(update={"height": 32}))

    def test_a_size_that_the_pipeline_rounds(self) -> None:
        sampler = SAMPLER.model_copy(update={"height": 5, "width": 4})
        with pytest.raises(UserError, match=r"asks for 5×4 pixels.* draws 4×4"):
            generate(FakePipeline(np.zeros((1, 4, 4, 3))), PROMPTS[:1], [0], sampler)

    def test_a_negative_prompt_without_guidance(self, pipe: Any) -> None:
        sampler = SAMPLER.model_copy(update={"guidance": 1.0, "negative_prompt": "blue"})
        with pytest.raises(UserError, match=r"negative_prompt = 'blue' has no effect"):
            generate(pipe, PROMPTS[:1], [0], sampler)

    @pytest.mark.parametrize(
        ("change", "setting"),
        [
            ({"guidance": 3.0}, "guidance"),
            ({"height": 4, "width": 4}, "height"),
            ({"negative_prompt": "blue", "guidance": 3.0}, "guidance"),
        ],
    )
    def test_what_its_call_does_not_name(self, change: dict[str, Any], setting: str) -> None:
        sampler = Sampler(steps=2, guidance=1.0).model_copy(update=change)
        with pytest.raises(UserError, match=f"sampler.{setting} = .* has no effect on Unguided"):
            generate(Unguided(np.zeros((1, 4, 4, 3))), PROMPTS[:1], [0], sampler)

    def test_guidance_off_is_fine_where_there_is_none(self) -> None:
        pipe = Unguided(np.zeros((1, 4, 4, 3)))
        assert len(generate(pipe, PROMPTS[:1], [0], Sampler(steps=2, guidance=1.0))) == 1

    def test_a_distilled_pipeline_heeds_guidance_only_with_an_input_for_it(self) -> None:
        pipe = Distilled(np.zeros((1, 4, 4, 3)), guidance_embeds=True)
        assert generate(pipe, PROMPTS[:1], [0], SAMPLER)
        assert pipe.given["guidance_scale"] == 3.0
        without = Distilled(np.zeros((1, 4, 4, 3)), guidance_embeds=False)
        with pytest.raises(UserError, match=r"guidance = 3\.0 has no effect on Distilled"):
            generate(without, PROMPTS[:1], [0], SAMPLER)

    def test_a_distilled_pipeline_drops_negative_prompts(self) -> None:
        pipe = Distilled(np.zeros((1, 4, 4, 3)), guidance_embeds=True)
        with pytest.raises(UserError, match="negative_prompt"):
            generate(pipe, PROMPTS[:1], [0], SAMPLER.model_copy(update={"negative_prompt": "blue"}))

    def test_something_that_is_no_text_to_image_pipeline(self) -> None:
        class Upscaler(FakePipeline):
            def __call__(self, image: Any, generator: Any, output_type: str) -> Any:
                raise AssertionError

        with pytest.raises(UserError, match="Upscaler takes no prompt"):
            generate(Upscaler(np.zeros((1, 4, 4, 3))), PROMPTS[:1], [0], SAMPLER)


class TestRecipe:
    def test_every_setting_of_the_sampler_is_in_it(self) -> None:
        changes = {
            "steps": 9,
            "guidance": 1.5,
            "height": 8,
            "width": 8,
            "negative_prompt": "x",
            "batch": 5,
            "compile": True,
        }
        assert set(changes) == set(Sampler.model_fields)
        recipes = [
            generation_recipe(SAMPLER.model_copy(update={field: value}))
            for field, value in changes.items()
        ]
        assert all(recipe != generation_recipe(SAMPLER) for recipe in recipes)

    def test_it_names_the_code_and_the_libraries(self) -> None:
        recipe: Any = generation_recipe(SAMPLER)
        assert (
            recipe["versions"]["torch"] == torch.__version__.split("+")[0]
            or "+" in (recipe["versions"]["torch"])
        )
        assert set(recipe["versions"]) == {"torch", "diffusers", "transformers"}
        assert len(recipe["code"]) == 32

    def test_it_is_had_without_torch(self) -> None:
        code = (
            "import sys; from spqr_checks.generation.sampling import generation_recipe; "
            "from spqr_checks.choices import Sampler; generation_recipe(Sampler()); "
            "assert not {'torch', 'diffusers', 'numpy', 'PIL'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_an_attacked_prompt_starts_from_the_noise_of_what_it_was(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    # a text encoder that says the same of every prompt: the noise alone decides the image
    for parameter in tiny_pipeline.text_encoder.parameters():
        parameter.data.zero_()
    sampler = Sampler(steps=1, batch=2)
    before = draw(tiny_pipeline, ["a star"], [0], sampler).images[0]
    attacked = draw(tiny_pipeline, ["zig zag"], [0], sampler, ["a star"]).images[0]
    alone = draw(tiny_pipeline, ["zig zag"], [0], sampler).images[0]
    assert attacked.tobytes() == before.tobytes()
    assert alone.tobytes() != before.tobytes()
