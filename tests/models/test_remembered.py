"""Texts and pictures are encoded once for all states, and nothing that differs is taken for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTextModel

from spqr_checks.choices import Profile, Sampler
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.datasets import load_images
from spqr_checks.finetuning.trainer import finetune
from spqr_checks.generation.sampling import draw
from spqr_checks.models import remembered
from spqr_checks.models.pipelines import load_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLER = Sampler(steps=2, guidance=3.0, batch=2)
PROMPTS = ["a red triangle", "a blue circle", "a green square"]


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    remembered.forget()
    yield
    remembered.forget()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often text encoders and autoencoders' encoders were asked, in batches."""
    counted: Counter[str] = Counter()

    def counting(kind: Any, name: str, what: str) -> None:
        real = getattr(kind, name)

        def noted(self: Any, *given: Any, **named: Any) -> Any:
            counted[what] += 1
            return real(self, *given, **named)

        monkeypatch.setattr(kind, name, noted)

    counting(CLIPTextModel, "forward", "texts")
    counting(AutoencoderKL, "encode", "pictures")
    return counted


@pytest.fixture
def load(tiny_pipeline_dir: Path) -> Callable[[], StableDiffusionPipeline]:
    """The pipeline, loaded anew."""

    def loaded() -> StableDiffusionPipeline:
        pipe = load_pipeline(str(tiny_pipeline_dir))
        assert isinstance(pipe, StableDiffusionPipeline)
        return pipe

    return loaded


def drawn(pipe: StableDiffusionPipeline, prompts: list[str] = PROMPTS) -> bytes:
    images = draw(pipe, prompts, [0] * len(prompts), SAMPLER).images
    return b"".join(np.asarray(image).tobytes() for image in images)


def other_state(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    with torch.no_grad():
        next(pipe.unet.parameters()).mul_(0.5)
    return pipe


@pytest.mark.heavy
def test_prompts_are_encoded_once_for_all_states_of_a_text_encoder(
    load: Callable[[], StableDiffusionPipeline], calls: Counter[str]
) -> None:
    images = drawn(load())
    asked = calls["texts"]
    assert asked == 4  # two batches, each with its negative prompt
    others = drawn(other_state(load()))  # loaded anew: the content counts
    assert calls["texts"] == asked
    assert others != images
    remembered.forget()
    assert (drawn(load()), drawn(other_state(load()))) == (images, others)
    drawn(load(), PROMPTS[1:])  # other batches, which may have other last bits
    assert calls["texts"] == 2 * asked + 2


@pytest.mark.heavy
def test_whatever_makes_another_encoding_is_encoded(
    load: Callable[[], StableDiffusionPipeline], calls: Counter[str]
) -> None:
    pipe = load()
    before = drawn(pipe)

    def is_asked_again() -> bool:
        asked = calls["texts"]
        drawn(pipe)
        return calls["texts"] > asked

    assert not is_asked_again()
    pipe.tokenizer.add_tokens(["triangle"])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))
    assert is_asked_again()
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight.mul_(1.5)
    assert is_asked_again()
    assert drawn(pipe) != before
    handle = pipe.text_encoder.register_forward_hook(lambda *_: None)
    assert is_asked_again()
    assert is_asked_again()  # a hook may do otherwise each time
    handle.remove()
    assert not is_asked_again()


def finetuned(
    pipe: StableDiffusionPipeline, data: CaptionedImages, trains: Any, folder: Path
) -> dict[str, bytes]:
    profile = Profile(trains=trains, steps=1, batch=2)
    finetune(pipe, data, profile, 0, folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.heavy
def test_data_is_encoded_once_for_two_states_and_two_profiles(
    load: Callable[[], StableDiffusionPipeline], calls: Counter[str], tmp_path: Path
) -> None:
    data = load_images("miniature:stripes:6")
    found = {}
    for state, pipe in (("base", load()), ("other", other_state(load()))):
        for trains in ("lora", "denoiser"):
            found[state, trains] = finetuned(pipe, data, trains, tmp_path / state / trains)
    assert calls["pictures"] == 1
    texts = calls["texts"]
    remembered.forget()
    again = finetuned(load(), data, "lora", tmp_path / "again")
    assert again == found["base", "lora"]
    assert (calls["pictures"], calls["texts"]) == (2, 2 * texts)
    fewer = CaptionedImages(data.images[:4], data.captions[:4])
    finetuned(load(), fewer, "lora", tmp_path / "fewer")
    assert calls["pictures"] == 3


def test_no_more_is_kept_than_there_is_room_for(
    load: Callable[[], StableDiffusionPipeline],
    calls: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remembered, "MOST_BYTES", 0)
    pipe = load()
    assert drawn(pipe) == drawn(pipe)
    assert calls["texts"] == 8
