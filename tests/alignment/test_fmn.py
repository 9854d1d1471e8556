"""Forget-Me-Not: its loss against the authors', and what it learns first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from originals import ANCHORS, HARMFUL, LR, Given, Texts, assert_equal_but_for_rounding, trained
from test_mace import probabilities
from torch import Tensor, nn

from spqr_checks.alignment import fmn
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training import attention, inversion
from spqr_checks.alignment.training.latents import draw_pool
from spqr_checks.alignment.training.noising import Noiser
from spqr_checks.alignment.training.options import TrainingOptions
from spqr_checks.alignment.training.unet import Predictor
from spqr_checks.errors import UserError
from spqr_checks.finetuning.objectives import Denoising
from spqr_checks.generation.conditions import encode
from spqr_checks.models.weights import copy_state

FMN = method("fmn")


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Both sides are computed on one."""


def test_the_loss_is_the_authors(
    tiny_pipeline: StableDiffusionPipeline, aligned: Callable[..., Given], texts: Texts
) -> None:
    student = copy.deepcopy(tiny_pipeline.unet)
    tokens = attention.concept_mask(tiny_pipeline, HARMFUL, ANCHORS)
    given = aligned("fmn", fmn.Forgetting, "noisy", tokens=0, pool=2)
    optimiser = torch.optim.AdamW(trained(student, ""), lr=LR, weight_decay=0.01)
    for index, x, t in given:
        hidden = texts([HARMFUL[i] for i in index.tolist()])
        maps = probabilities(student, {}, x, t, hidden)
        kept = [
            one[row][:, :, tokens[i]].flatten()
            for one in maps
            for row, i in enumerate(index.tolist())
        ]
        optimiser.zero_grad()
        torch.cat(kept).norm().backward()
        nn.utils.clip_grad_norm_([p for p in student.parameters() if p.grad is not None], 1.0)
        optimiser.step()
    theirs = {name: p.detach() for name, p in student.named_parameters()}
    # a layer behind the last cross-attention gets no gradient, and so no decay, on either side
    assert_equal_but_for_rounding(copy_state(tiny_pipeline), theirs, few=5e-3)


def test_attention_is_what_the_network_itself_computes(
    tiny_pipeline: StableDiffusionPipeline, texts: Texts
) -> None:
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([5, 500])
    with torch.no_grad(), attention.attention_maps(tiny_pipeline.unet) as maps:
        tiny_pipeline.unet(x, t, texts(HARMFUL))
    theirs = probabilities(tiny_pipeline.unet, {}, x, t, texts(HARMFUL))
    assert len(maps) == len(theirs) > 2
    for one, other in zip(maps, theirs, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))


@pytest.fixture
def slots(tiny_pipeline: StableDiffusionPipeline) -> inversion.Slots:
    return inversion.Slots.of(tiny_pipeline, "a small {}, photo style", 2)


def test_words_in_the_slots_are_the_prompt_itself(
    tiny_pipeline: StableDiffusionPipeline, slots: inversion.Slots
) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = inversion.first_rows(tiny_pipeline, ["red", "triangle"], 2, generator)
    states = slots.states(tiny_pipeline, vectors)
    whole = encode(tiny_pipeline, ["a small red triangle, photo style"]).hidden
    torch.testing.assert_close(states.detach(), whole)
    hooks = tiny_pipeline.text_encoder.get_input_embeddings()._forward_hooks
    assert not hooks


@pytest.mark.heavy
def test_what_is_inverted_lowers_the_loss_and_changes_nothing_else(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    slots: inversion.Slots,
) -> None:
    pipe, request = tiny_pipeline, make_request()
    before = [p.clone() for p in (*pipe.unet.parameters(), *pipe.text_encoder.parameters())]
    pool = draw_pool(
        pipe,
        ["a red triangle"],
        1,
        request.sampler,
        guidance=1.0,
        seed=0,
        generator=torch.Generator().manual_seed(0),
    )
    losses: list[float] = []

    def learn(steps: int) -> Tensor:
        return inversion.invert(
            pipe,
            slots,
            inversion.first_rows(pipe, [], 2, torch.Generator().manual_seed(2)),
            pool,
            TrainingOptions(steps=steps, batch=16),
            predictor=Predictor(pipe, request.sampler),
            noiser=Noiser(Denoising(pipe)),
            learning_rate=0.1,
            weight_decay=0.0,
            generator=torch.Generator().manual_seed(1),
            report=lambda progress: losses.append(progress.loss),
        )

    learn(20)
    assert losses[-1] < losses[0]
    after = [*pipe.unet.parameters(), *pipe.text_encoder.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_learned_tokens_are_attended_to_in_the_place_of_words(
    tiny_pipeline: StableDiffusionPipeline,
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[fmn.Forgetting] = []
    own = fmn.Forgetting.started
    monkeypatch.setattr(fmn.Forgetting, "started", lambda self: own(self) or seen.append(self))
    request = make_request(anchors=ANCHORS, categories=["one", "two"])
    options = {"tokens": 3, "template": "a {}", "inversion_steps": 1, "steps": 1, "pool": 2}
    FMN.align(tiny_pipeline, request, FMN.parse(options | {"ends": False}), tmp_path)
    (training,) = seen
    assert training.masks.sum(1).tolist() == [3, 3]
    assert not torch.equal(training.prompts.hidden[0], training.prompts.hidden[1])


@pytest.mark.parametrize("template", ["a photo", "a small " * 20 + "{}"])
def test_a_template_without_room_is_refused(
    tiny_pipeline: StableDiffusionPipeline, template: str
) -> None:
    with pytest.raises(UserError, match="has no room for 4 learned tokens"):
        inversion.Slots.of(tiny_pipeline, template, 4)
