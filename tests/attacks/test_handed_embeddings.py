"""Attacks that hand embeddings to the pipeline: what they hand over, and what is drawn from it."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_classes
import torch
from diffusers import StableDiffusionPipeline
from runs import run_of
from targets import Two, no_report, request

from spqr_checks.attacks.registry import ATTACKS
from spqr_checks.attacks.search import concept
from spqr_checks.attacks.search.concept import concept_vectors
from spqr_checks.attacks.search.encoders import encoded, handed
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import Guidance, attach_guidance
from spqr_checks.generation.guidance.registry import GUIDANCES
from spqr_checks.generation.sampling import draw
from spqr_checks.models.pipelines import load_pipeline

PROMPTS = ["a red triangle", "a photo of a blue star"]
SAMPLER = Sampler(steps=2, guidance=3.0, batch=4)


def found(name: str, pipe: Any, original: Any, **options: Any) -> Any:
    attack = ATTACKS.get(name)
    return attack.run(Two(pipe, original), request(), attack.options(**options), no_report)


def pixels(pipe: Any, sampler: Sampler, **given: Any) -> np.ndarray:
    images = draw(pipe, PROMPTS, [0, 1], sampler, **given).images
    return np.stack([np.asarray(image, dtype=int) for image in images])


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "sd3", "flux"])
def test_a_prompt_s_own_embedding_draws_what_the_prompt_does_and_a_moved_one_does_not(
    name: str, real_class: Callable[[str], Path]
) -> None:
    pipe, sampler = load_pipeline(str(real_class(name))), real_classes.sampler(name)
    with torch.no_grad():
        own = [encoded(pipe, [prompt]) for prompt in PROMPTS]
    plain = pixels(pipe, sampler)
    same = pixels(pipe, sampler, embeddings=[handed([s[0] for s in one]) for one in own])
    assert np.abs(same - plain).max() <= 1
    moved = [handed([s[0] + 3 * s[0].flip(0) for s in one]) for one in own]
    assert np.abs(pixels(pipe, sampler, embeddings=moved) - plain).max() > 1


def test_ring_a_bell_moves_the_prompt_along_the_concept(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    handed_over = found("ring-a-bell-embedding", tiny_pipeline, None, eta=2.0)
    with torch.no_grad():
        own = encoded(tiny_pipeline, [request().prompt])[0][0]
    (vector,) = concept_vectors(tiny_pipeline, request().concept)
    assert handed_over.prompt == request().prompt
    torch.testing.assert_close(handed_over.embeddings["prompt_embeds"], own + 2 * vector)
    assert float(vector.norm()) > 0


def test_an_embedding_that_is_the_prompt_s_own_is_no_attack(
    tiny_pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concept, "PAIRS", (("{concept}", "red triangle"),))
    assert not found("ring-a-bell-embedding", tiny_pipeline, None).embeddings


@pytest.mark.heavy
def test_rece_finds_what_brings_the_original_s_picture_back(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    edited = StableDiffusionPipeline(
        **{name: copy.deepcopy(part) for name, part in tiny_pipeline.components.items()},
        requires_safety_checker=False,
    )
    generator = torch.Generator().manual_seed(0)
    width = edited.unet.config.cross_attention_dim
    turned = torch.eye(width) + 0.4 * torch.randn(width, width, generator=generator) / width**0.5
    for name, layer in edited.unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            layer.weight.data = layer.weight.data @ turned
    attack = ATTACKS.get("rece")
    given = [
        attack.run(
            Two(edited, tiny_pipeline),
            replace(request(), prompt=prompt),
            attack.options(reg=1e-9),
            no_report,
        ).embeddings
        for prompt in PROMPTS
    ]
    original = pixels(tiny_pipeline, SAMPLER)
    assert np.abs(pixels(edited, SAMPLER) - original).max() > 1
    # the empty prompt of guidance goes through the edited layers as it is
    unguided = SAMPLER.model_copy(update={"guidance": 1.0})
    aim = pixels(tiny_pipeline, unguided)
    assert np.abs(pixels(edited, unguided, embeddings=given) - aim).max() <= 1
    assert np.abs(pixels(edited, unguided) - aim).max() > 1


class Reading(Guidance):
    """A guidance that asks for the prompt's tokens."""

    kind: str = "reading"
    reads_tokens = True

    @property
    def acts(self) -> bool:
        return True

    def check(self, pipe: Any, sampler: Any) -> None:
        """Works everywhere."""

    def prepare(self, pipe: Any) -> Any:
        return self

    def around(self, pipe: Any) -> Any:
        return nullcontext()


def test_guidance_that_reads_the_prompt_is_not_drawn_from_embeddings(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    attach_guidance(tiny_pipeline, Reading())
    pixels(tiny_pipeline, SAMPLER)
    states = encoded(tiny_pipeline, PROMPTS)[0]
    with pytest.raises(UserError, match="reads the prompt's tokens"):
        pixels(tiny_pipeline, SAMPLER, embeddings=[handed([one]) for one in states])


@pytest.mark.parametrize("kind", GUIDANCES.names())
def test_a_guidance_says_whether_it_reads_tokens(kind: str) -> None:
    guidance = GUIDANCES.get(kind)
    source = inspect.getsource(sys.modules[guidance.__module__])
    assert guidance.reads_tokens is ("PromptTokens" in source)


def test_a_pipeline_that_takes_no_such_embedding_is_refused(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    states = encoded(tiny_pipeline, PROMPTS)[0]
    with pytest.raises(UserError, match="takes no pooled_prompt_embeds"):
        pixels(tiny_pipeline, SAMPLER, embeddings=[handed([one, one[0]]) for one in states])


def test_no_guard_is_asked_about_what_it_cannot_read(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    both = {"attacks": "ring-a-bell-embedding,ring-a-bell", "guard": "blocklist"}
    with pytest.raises(UserError, match="ring-a-bell-embedding: hands embeddings.*without guards"):
        _ = run_of(tmp_path, tiny_pipeline_dir, "base", **both).attacks
    text = run_of(tmp_path, tiny_pipeline_dir, "base", **both | {"attacks": "ring-a-bell"})
    assert [each.name for each in text.attacks] == ["ring-a-bell"]
