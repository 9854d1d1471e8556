"""SDD: its defaults, its loss by hand, which prompts it is taken at, and the teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.sdd import SddOptions, SelfDistillation
from spqr_checks.alignment.training.distillation import Lesson
from spqr_checks.alignment.training.unet import trainable
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import Conditions, encode
from spqr_checks.models.weights import copy_state

MakePipeline = Callable[[], StableDiffusionPipeline]
SDD = method("sdd")
LAYER = "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.weight"


@pytest.fixture
def align(
    make_pipeline: MakePipeline, make_request: Callable[..., AlignmentRequest], tmp_path: Path
) -> Callable[..., StableDiffusionPipeline]:
    """Aligns a fresh pipeline in a few quick steps and returns it."""

    def run(**options: Any) -> StableDiffusionPipeline:
        pipe = make_pipeline()
        quick = {"steps": 1, "batch": 2, "learning_rate": 1e-2, "latents": "pool", "pool": 4}
        SDD.align(pipe, make_request(), SDD.parse(quick | options), tmp_path)
        return pipe

    return run


Align = Callable[..., StableDiffusionPipeline]


def test_the_defaults_are_the_authors() -> None:
    options = SDD.parse({}).model_dump()
    assert {
        "concept": "joined",
        "latents": "teacher",
        "trains": "x",
        "start_guidance": 3.0,
        "steps": 1500,
        "batch": 1,
        "learning_rate": 1e-5,
        "weight_decay": 1e-4,
        "clip": 1.0,
        "ema": 0.999,
        "rank": 0,
        "keep_weight": 0.0,
    }.items() <= options.items()


@pytest.mark.parametrize("given", [{"ema": 1.0}, {"clip": 0}, {"latents": "student"}])
def test_options_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"method 'sdd': option '{next(iter(given))}'"):
        SDD.parse(given)


@pytest.mark.heavy
def test_the_average_moves_by_its_share_of_the_student_s_step(
    make_pipeline: MakePipeline, align: Align
) -> None:
    start = copy_state(make_pipeline())[LAYER]
    student, teacher = (copy_state(align(ema=ema))[LAYER] - start for ema in (0.0, 0.9))
    assert student.abs().max() > 1e-3
    torch.testing.assert_close(teacher, 0.1 * student, atol=1e-6, rtol=1e-3)


@pytest.mark.heavy
def test_weights_decay(make_pipeline: MakePipeline, align: Align) -> None:
    start = copy_state(make_pipeline())[LAYER]
    plain, decayed = (copy_state(align(ema=0, weight_decay=decay))[LAYER] for decay in (0.0, 0.5))
    # AdamW shrinks what was there before the step; the step itself is Adam's
    torch.testing.assert_close(decayed, plain - 1e-2 * 0.5 * start)


@pytest.mark.heavy
def test_at_the_concepts_the_model_comes_to_predict_what_it_predicts_without_a_prompt(
    make_pipeline: MakePipeline, align: Align
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(8, 4, 8, 8, generator=generator), torch.arange(100, 900, 100)

    def distance(pipe: StableDiffusionPipeline) -> float:
        empty, concept = encode(pipe, ["", "red triangle"]).hidden
        with torch.no_grad():
            predicted = [
                pipe.unet(x, t, hidden.expand(8, -1, -1)).sample for hidden in (empty, concept)
            ]
        return float((predicted[0] - predicted[1]).norm())

    aligned = align(steps=40, ema=0.5, batch=4)
    assert distance(aligned) < 0.4 * distance(make_pipeline())


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
