"""SDD's loss by hand, which prompts it is taken at, and the teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.sdd import SddOptions, SelfDistillation
from spqr_checks.alignment.training.distillation import Lesson
from spqr_checks.alignment.training.unet import trainable
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import Conditions, encode

CONCEPTS = ["red triangle", "star", "moon"]


@pytest.fixture
def training(
    tiny_pipeline: StableDiffusionPipeline, make_request: Callable[..., AlignmentRequest]
) -> Callable[..., SelfDistillation]:
    """A training on three concepts; options may be given."""

    def make(**given: Any) -> SelfDistillation:
        options = SddOptions.model_validate({"batch": 2, "pool": 5} | given)
        return SelfDistillation(tiny_pipeline, make_request(concepts=CONCEPTS), options)

    return make


def scale(network: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(factor)


def drawings(training: SelfDistillation, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Records the prompts that latents are drawn for."""
    seen: list[Tensor] = []
    draw = training.draw_partly

    def recording(network: nn.Module, prompts: Conditions) -> tuple[Tensor, Tensor]:
        seen.append(prompts.hidden)
        return draw(network, prompts)

    monkeypatch.setattr(training, "draw_partly", recording)
    return seen


@pytest.mark.parametrize("latents", ["teacher", "pool"])
def test_the_loss_is_between_the_student_s_own_predictions(
    tiny_pipeline: StableDiffusionPipeline, training: Callable[..., SelfDistillation], latents: str
) -> None:
    scale(tiny_pipeline.unet, 1.1)
    with torch.no_grad():
        loss = training(latents=latents).loss()
        _, x, t = training(latents=latents).noisy()
        both = encode(tiny_pipeline, ["", "red triangle, star, moon"]).hidden
        empty, joined = (
            tiny_pipeline.unet(x, t, hidden[None].expand(2, -1, -1)).sample for hidden in both
        )
    assert loss > 0
    torch.testing.assert_close(loss, (empty - joined).square().mean())


def test_the_target_moves_with_the_student_and_takes_no_gradient(
    training: Callable[..., SelfDistillation],
) -> None:
    lessons: list[Lesson] = []
    for factor in (1.0, 1.5):
        made = training(latents="pool")
        scale(made.student, factor)
        made.student.requires_grad_(True)
        lessons.append(made.lesson())
    assert torch.equal(lessons[0].x, lessons[1].x)
    assert not torch.allclose(lessons[0].target, lessons[1].target)
    assert not any(lesson.target.requires_grad for lesson in lessons)


def test_the_gradient_is_that_towards_the_student_s_fixed_guess(
    training: Callable[..., SelfDistillation],
) -> None:
    made, again = training(latents="pool"), training(latents="pool")
    (parameter, *_) = trainable(made.student, made.options, 0)
    made.loss().backward()
    assert parameter.grad is not None
    lesson = again.lesson()
    predicted = again.predictor(again.student, lesson.x, lesson.t, lesson.prompts)
    (expected,) = torch.autograd.grad(F.mse_loss(predicted, lesson.target), parameter)
    assert expected.abs().max() > 0
    torch.testing.assert_close(parameter.grad, expected)


def test_joined_concepts_are_asked_and_single_ones_drawn_in_turn(
    tiny_pipeline: StableDiffusionPipeline,
    training: Callable[..., SelfDistillation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = training()
    seen = drawings(made, monkeypatch)
    asked = torch.stack([made.lesson().prompts.hidden for _ in range(3)])
    joined = encode(tiny_pipeline, ["red triangle, star, moon"]).hidden
    torch.testing.assert_close(asked, joined.expand(3, 2, -1, -1))
    single = encode(tiny_pipeline, CONCEPTS).hidden
    torch.testing.assert_close(torch.cat(seen), single[[0, 1, 2, 0, 1, 2]])


def test_harmful_prompts_are_asked_where_they_are_drawn(
    tiny_pipeline: StableDiffusionPipeline,
    training: Callable[..., SelfDistillation],
    make_request: Callable[..., AlignmentRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = training(concept="harmful")
    seen = drawings(made, monkeypatch)
    asked = torch.cat([made.lesson().prompts.hidden for _ in range(6)])
    assert torch.equal(asked, torch.cat(seen))
    harmful = encode(tiny_pipeline, make_request().harmful).hidden
    which = [int((hidden - harmful).flatten(1).norm(dim=1).argmin()) for hidden in asked]
    assert set(which) == {0, 1}
    torch.testing.assert_close(asked, harmful[which])


def test_pools_show_concepts_several_times_or_harmful_prompts_once(
    training: Callable[..., SelfDistillation],
) -> None:
    concepts, harmful = (
        training(latents="pool", concept=concept).pool for concept in ("joined", "harmful")
    )
    assert concepts is not None
    assert harmful is not None
    assert concepts.shows.tolist() == [0, 1, 2, 0, 1]
    assert harmful.shows.tolist() == [0, 1]


def test_concepts_that_are_not_named_cannot_be_joined(
    tiny_pipeline: StableDiffusionPipeline, make_request: Callable[..., AlignmentRequest]
) -> None:
    request = make_request(concepts=[])
    with pytest.raises(UserError, match="names none.*concept = 'harmful'"):
        SelfDistillation(tiny_pipeline, request, SddOptions())
    SelfDistillation(tiny_pipeline, request, SddOptions(concept="harmful"))


# ---- the teacher ---------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", ["student", "teacher"])
def test_latents_follow_the_teacher(training: Callable[..., SelfDistillation], moved: str) -> None:
    def latents(factor: float) -> list[Tensor]:
        made = training()
        made.started()
        network = getattr(made, moved)
        scale(network, factor)
        try:
            return [made.noisy()[1] for _ in range(4)]
        finally:
            scale(network, 1 / factor)

    same = [torch.equal(a, b) for a, b in zip(latents(1.0), latents(2.0), strict=True)]
    assert all(same) == (moved == "student")


@pytest.mark.parametrize("rank", [0, 2])
def test_the_teacher_follows_slowly_and_is_what_is_saved(
    training: Callable[..., SelfDistillation], rank: int
) -> None:
    made = training(ema=0.75, rank=rank)
    parameters = trainable(made.student, made.options, 0)
    made.started()
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(1)
        made.stepped()
        for parameter in parameters:
            parameter.add_(1)
        made.stepped()
    made.finished()
    # 0.75 · (0.75 · 0 + 0.25 · 1) + 0.25 · 2
    for parameter, start in zip(parameters, before, strict=True):
        torch.testing.assert_close(parameter - start, torch.full_like(start, 0.6875))


def test_the_teacher_takes_no_gradient(training: Callable[..., SelfDistillation]) -> None:
    made = training()
    trainable(made.student, made.options, 0)
    made.started()
    assert not any(parameter.requires_grad for parameter in made.teacher.parameters())
    assert len(made.pairs) == sum(p.requires_grad for p in made.student.parameters()) > 0
