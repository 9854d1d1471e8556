"""Data as the denoiser sees them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image

from spqr_checks.errors import UserError
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.examples import encode, image_size

CPU = torch.device("cpu")


def test_latents_are_scaled_means_of_the_posterior_whatever_the_batch_is_made_of(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages
) -> None:
    vae, size = tiny_pipeline.vae, image_size(tiny_pipeline)
    examples = encode(tiny_pipeline, scenes)
    assert size == (16, 16)
    assert examples.latents.shape == (6, 4, 8, 8)
    image = scenes.images[5].resize(size, Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()).float() / 127.5 - 1
    with torch.no_grad():
        mean = vae.encode(pixels[None]).latent_dist.mean[0] * vae.config.scaling_factor
    torch.testing.assert_close(examples.latents[5], mean)


def test_another_resolution_is_a_square_on_the_pipeline_s_grid(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages
) -> None:
    assert image_size(tiny_pipeline, 24) == (24, 24)
    assert encode(tiny_pipeline, scenes, 24).latents.shape == (6, 4, 12, 12)
    with pytest.raises(UserError, match=r"at a resolution of 25 pixels; give a multiple of 2$"):
        encode(tiny_pipeline, scenes, 25)


def test_sdxl_is_told_the_resolution(
    tiny_xl: StableDiffusionXLPipeline, scenes: CaptionedImages
) -> None:
    examples = encode(tiny_xl, scenes, 32)
    assert examples.conditions.time_ids.tolist() == [32, 32, 0, 0, 32, 32]


def test_shift_and_scale_of_the_latents_are_undone_by_the_pipeline(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages
) -> None:
    plain = encode(tiny_pipeline, scenes).latents / tiny_pipeline.vae.config.scaling_factor
    tiny_pipeline.vae.register_to_config(shift_factor=0.5, scaling_factor=2.0)
    # what pipelines do before they decode: latents / scaling_factor + shift_factor
    torch.testing.assert_close(encode(tiny_pipeline, scenes).latents / 2.0 + 0.5, plain)


def test_images_are_cropped_in_the_middle_not_squeezed(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    wide = Image.new("RGB", (64, 16), "black")
    wide.paste("white", (24, 0, 40, 16))
    square = Image.new("RGB", (16, 16), "white")
    examples = encode(tiny_pipeline, CaptionedImages([wide, square], ["a", "b"]))
    torch.testing.assert_close(examples.latents[0], examples.latents[1])


def test_each_distinct_caption_has_one_row_and_the_empty_caption_row_zero(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    image = Image.new("RGB", (16, 16))
    data = CaptionedImages([image] * 3, ["a red house", "a tree", "a red house"])
    examples = encode(tiny_pipeline, data)
    assert examples.rows.tolist() == [1, 2, 1]
    assert len(examples.conditions.hidden) == 3
    for row, text in enumerate(["", "a red house", "a tree"]):
        with torch.no_grad():
            expected, _ = tiny_pipeline.encode_prompt(text, CPU, 1, False)
        torch.testing.assert_close(examples.conditions.hidden[row], expected[0])


def test_sdxl_is_conditioned_as_when_it_draws(
    tiny_xl: StableDiffusionXLPipeline, scenes: CaptionedImages
) -> None:
    pipe = tiny_xl
    examples = encode(pipe, scenes)
    seen: list[dict[str, Any]] = []

    def note(*given: Any, **named: Any) -> SimpleNamespace:
        seen.append(named)
        return SimpleNamespace(sample=given[0])

    x, rows = torch.zeros(2, 4, 8, 8), torch.tensor([0, 3])
    examples.conditions.predict(note, x, torch.tensor([1, 2]), rows)  # type: ignore[arg-type]
    (arguments,) = seen
    caption = list(dict.fromkeys(scenes.captions))[2]
    with torch.no_grad():
        hidden, no_hidden, pooled, no_pooled = pipe.encode_prompt(caption)
    torch.testing.assert_close(arguments["encoder_hidden_states"], torch.cat([no_hidden, hidden]))
    added = arguments["added_cond_kwargs"]
    torch.testing.assert_close(added["text_embeds"], torch.cat([no_pooled, pooled]))
    assert not no_pooled.any()
    expected = pipe._get_add_time_ids((16, 16), (0, 0), (16, 16), torch.float32, 12)
    assert torch.equal(added["time_ids"], expected.expand(2, -1))


@pytest.mark.parametrize(("part", "what"), [("vae", "latents"), ("text_encoder", "embeddings")])
def test_values_that_are_not_finite_are_refused(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages, part: str, what: str
) -> None:
    with torch.no_grad():
        next(getattr(tiny_pipeline, part).parameters()).fill_(float("nan"))
    with pytest.raises(ArithmeticError, match=what):
        encode(tiny_pipeline, scenes)


def test_the_autoencoder_keeps_its_precision_and_encodes_in_float32(
    tiny_pipeline: StableDiffusionPipeline, scenes: CaptionedImages
) -> None:
    tiny_pipeline.vae.half()
    examples = encode(tiny_pipeline, scenes)
    assert examples.latents.dtype == torch.float32
    assert tiny_pipeline.vae.dtype == torch.float16
