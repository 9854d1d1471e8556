"""Every pipeline class in use: loaded from its folder, and drawing paired, seeded images."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_classes import CLASSES, UNGUIDED, VARIANTS, sampler

from spqr_checks.errors import UserError
from spqr_checks.generation.sampling import generate
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import denoiser_of, networks

ALL = (*CLASSES, *VARIANTS)
PROMPTS = ["a red circle", "a photo of a cat", "a red circle", "a hazard sign"]
SEEDS = [0, 0, 1, 3]
CLASS_NAMES = {
    "sd1": "StableDiffusionPipeline",
    "sd2": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "flux-schnell": "FluxPipeline",
    "pixart": "PixArtSigmaPipeline",
}
ENCODERS = {"sd1": 1, "sd2": 1, "sdxl": 2, "sd3": 3, "flux": 2, "flux-schnell": 2, "pixart": 1}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def loaded(real_class: Callable[[str], Path]) -> Callable[[str], Any]:
    """Loaded pipelines, each once; not to be changed."""
    return cache(lambda name: load_pipeline(str(real_class(name))))


@pytest.fixture(scope="module")
def drawn(loaded: Callable[[str], Any]) -> Callable[[str], np.ndarray]:
    """Images of `PROMPTS` and `SEEDS`, drawn in one batch, once for each class."""
    return cache(lambda name: pixels(generate(loaded(name), PROMPTS, SEEDS, sampler(name))))


def pixels(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(int)


@pytest.mark.parametrize("name", ALL)
def test_it_is_loaded_whole_as_the_class_that_it_is(
    loaded: Callable[[str], Any], name: str
) -> None:
    pipe = loaded(name)
    parts = networks(pipe)
    assert type(pipe).__name__ == CLASS_NAMES[name]
    assert len([part for part in parts if part.startswith("text_encoder")]) == ENCODERS[name]
    assert {"vae", "unet" if name in ("sd1", "sd2", "sdxl") else "transformer"} < parts.keys()
    for part in parts.values():
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_that_of_its_prompt_and_seed_alone_or_in_a_batch(
    loaded: Callable[[str], Any], drawn: Callable[[str], np.ndarray], name: str
) -> None:
    together = drawn(name)
    assert together.shape == (4, 16, 16, 3)
    assert together.std() > 10, "nothing to be seen"
    alone = pixels(generate(loaded(name), PROMPTS, SEEDS, sampler(name, batch=1)))
    # other batches are other sums: a value may be rounded to the next
    assert np.abs(together - alone).max() <= 1
    assert np.array_equal(together, pixels(generate(loaded(name), PROMPTS, SEEDS, sampler(name))))


@pytest.mark.parametrize("name", ALL)
def test_another_seed_and_another_prompt_give_another_image(
    loaded: Callable[[str], Any], name: str
) -> None:
    one, other_prompt, other_seed, _ = pixels(generate(loaded(name), PROMPTS, SEEDS, sampler(name)))
    assert np.abs(one - other_prompt).mean() > 5
    assert np.abs(one - other_seed).mean() > 5


@pytest.mark.parametrize("name", ALL)
def test_the_prompt_reaches_the_denoiser(
    loaded: Callable[[str], Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spqr_checks.generation.sampling.image_seed", lambda _prompt, seed: seed)
    images = pixels(generate(loaded(name), PROMPTS[:2], [7, 7], sampler(name)))
    assert not np.array_equal(images[0], images[1])


@pytest.mark.parametrize("name", [name for name in ALL if name not in UNGUIDED])
def test_guidance_is_heeded(
    loaded: Callable[[str], Any], drawn: Callable[[str], np.ndarray], name: str
) -> None:
    guided = pixels(generate(loaded(name), PROMPTS, SEEDS, sampler(name, guidance=9.0)))
    assert not np.array_equal(drawn(name), guided)


def test_guidance_is_refused_where_the_weights_have_no_input_for_it(
    loaded: Callable[[str], Any],
) -> None:
    with pytest.raises(UserError, match=r"guidance = 3.0 has no effect on FluxPipeline"):
        generate(loaded("flux-schnell"), PROMPTS[:1], [0], sampler("flux-schnell", guidance=3.0))


@pytest.mark.parametrize("name", ["sd1", "sd3", "flux"])
def test_bfloat16_is_drawn_too(
    real_class: Callable[[str], Path],
    drawn: Callable[[str], np.ndarray],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # torch 2.7 draws other numbers in bfloat16 from the same seed
    randn = torch.randn
    rounded = lambda *size, dtype=None, **how: randn(*size, **how).to(dtype)  # noqa: E731
    monkeypatch.setattr(torch, "randn", rounded)
    pipe = load_pipeline(str(real_class(name)), "bfloat16")
    assert denoiser_of(pipe).dtype == torch.bfloat16
    images = pixels(generate(pipe, PROMPTS, SEEDS, sampler(name)))
    assert 0 < np.abs(images - drawn(name)).mean() < 16


@pytest.mark.heavy
def test_pixart_draws_by_aspect_ratios_where_it_knows_them(
    real_class: Callable[[str], Path], tmp_path: Path
) -> None:
    """Latents of 32×32 are one of the four sizes for which diffusers has a table of ratios."""
    from diffusers import PixArtTransformer2DModel

    pipe = load_pipeline(str(real_class("pixart")))
    config = dict(pipe.transformer.config) | {"sample_size": 32}
    pipe.transformer = PixArtTransformer2DModel.from_config(config)
    given: dict[str, Any] = {}
    whole = type(pipe).__call__

    def record(self: Any, *args: Any, **named: Any) -> Any:
        given.update(named)
        return whole(self, *args, **named)

    pipe.__class__ = type("Recorded", (type(pipe),), {"__call__": wraps(whole)(record)})
    size = {"height": 64, "width": 64}  # drawn at 256 × 256, made smaller afterwards
    images = generate(pipe, PROMPTS[:1], [0], sampler("pixart", steps=1, **size))
    assert images[0].size == (64, 64)
    assert "use_resolution_binning" not in given
    assert given["clean_caption"] is False
