"""Concept ablation: its defaults, its targets by hand, and that concepts become their anchors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from real_classes import sampler
from torch import Tensor

from spqr_checks.alignment.ca import Ablation, CaOptions
from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.latents import draw
from spqr_checks.alignment.training.noising import Noiser
from spqr_checks.errors import UserError
from spqr_checks.finetuning.objectives import Denoising
from spqr_checks.generation.conditions import encode
from spqr_checks.models.pipelines import load_pipeline

MakePipeline = Callable[[], StableDiffusionPipeline]
CA = method("ca")


def test_the_defaults_are_the_authors() -> None:
    options = CA.parse({}).model_dump()
    assert {
        "variant": "model",
        "trains": "x-strict",
        "start_guidance": 6.0,
        "steps": 100,
        "batch": 8,
        "weight_decay": 0.01,
        "regularisation": 0.0,
        "rank": 0,
        "keep_weight": 0.0,
    }.items() <= options.items()
    assert options["learning_rate"] == pytest.approx(8 * 2e-6)


@pytest.mark.parametrize("given", [{"trains": "u"}, {"variant": "images"}, {"regularisation": -1}])
def test_options_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"method 'ca': option '{next(iter(given))}'"):
        CA.parse(given)


@pytest.mark.heavy
def test_at_images_of_the_anchor_the_concept_comes_to_mean_the_anchor(
    make_pipeline: MakePipeline, make_request: Callable[..., AlignmentRequest], tmp_path: Path
) -> None:
    pipe, base = make_pipeline(), make_pipeline()
    request = make_request(harmful=["a red triangle"], anchors=["a blue star"])
    given = {"steps": 40, "batch": 4, "pool": 8, "learning_rate": 1e-3, "weight_decay": 0}
    CA.align(pipe, request, CA.parse(given), tmp_path)
    latents = draw(base, ["a blue star"] * 8, request.sampler, 6.0, seed=1)
    x, t = Noiser(Denoising(base))(latents, torch.Generator().manual_seed(0))

    def predicted(model: StableDiffusionPipeline, prompt: str) -> Tensor:
        hidden = encode(model, [prompt]).hidden.expand(8, -1, -1)
        with torch.no_grad():
            return model.unet(x, t, hidden).sample  # type: ignore[no-any-return]

    anchor = predicted(base, "a blue star")
    before = (predicted(base, "a red triangle") - anchor).norm()
    after = (predicted(pipe, "a red triangle") - anchor).norm()
    assert after < 0.5 * before


@pytest.fixture
def training(
    tiny_pipeline: StableDiffusionPipeline, make_request: Callable[..., AlignmentRequest]
) -> Callable[..., Ablation]:
    """A training on two harmful prompts and their anchors; options may be given."""

    def make(**given: Any) -> Ablation:
        options = CaOptions.model_validate({"batch": 6, "pool": 4} | given)
        return Ablation(tiny_pipeline, make_request(), options)

    return make


def predict(pipe: StableDiffusionPipeline, prompts: list[str], x: Tensor, t: Tensor) -> Tensor:
    with torch.no_grad():
        hidden = encode(pipe, prompts).hidden
        return pipe.unet(x, t, hidden).sample  # type: ignore[no-any-return]


def expects(kind: str, pipe: StableDiffusionPipeline) -> None:
    """Makes the pipeline one whose network predicts ``kind``."""
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=kind)


@pytest.mark.parametrize("teacher", ["frozen", "student"])
def test_the_target_is_the_teacher_s_prediction_for_the_anchor(
    tiny_pipeline: StableDiffusionPipeline,
    training: Callable[..., Ablation],
    make_request: Callable[..., AlignmentRequest],
    teacher: str,
) -> None:
    made, again = training(teacher=teacher), training(teacher=teacher)
    index, x, t, _ = again.noisy()
    anchors = [make_request().anchors[i] for i in index.tolist()]
    assert len(set(anchors)) == 2
    before = predict(tiny_pipeline, anchors, x, t)
    with torch.no_grad():
        for parameter in tiny_pipeline.unet.parameters():
            parameter.mul_(1.5)
    moved = predict(tiny_pipeline, anchors, x, t)
    assert not torch.allclose(before, moved, atol=1e-2)
    lesson = made.lesson()
    assert not lesson.target.requires_grad
    expected = before if teacher == "frozen" else moved
    torch.testing.assert_close(lesson.target, expected, atol=1e-5, rtol=1e-5)
    harmful = encode(tiny_pipeline, [make_request().harmful[i] for i in index.tolist()])
    torch.testing.assert_close(lesson.prompts.hidden, harmful.hidden)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_other_target_is_the_noise_or_the_velocity(
    tiny_pipeline: StableDiffusionPipeline, training: Callable[..., Ablation], kind: str
) -> None:
    expects(kind, tiny_pipeline)
    made, again = training(variant="noise"), training(variant="noise")
    assert torch.equal(made.pool.latents, again.pool.latents)
    _, z = again.pool.pick(6, again.generator)
    t = torch.randint(0, 1000, (6,), generator=again.generator)
    noise = torch.randn(z.shape, generator=again.generator)
    alpha = DDPMScheduler.from_config(tiny_pipeline.scheduler.config).alphas_cumprod[t]
    a, s = (root.sqrt()[:, None, None, None] for root in (alpha, 1 - alpha))
    lesson = made.lesson()
    torch.testing.assert_close(lesson.x, a * z + s * noise)
    torch.testing.assert_close(lesson.target, noise if kind == "epsilon" else a * noise - s * z)


def test_a_network_that_predicts_images_is_refused(
    tiny_pipeline: StableDiffusionPipeline, training: Callable[..., Ablation]
) -> None:
    expects("sample", tiny_pipeline)
    with pytest.raises(UserError, match="predicts 'sample'"):
        training().lesson()


def test_the_pool_shows_anchors_drawn_by_the_base(training: Callable[..., Ablation]) -> None:
    made = training()
    assert made.pool.shows.tolist() == [0, 1, 0, 1]
    assert not torch.equal(made.pool.latents[0], made.pool.latents[2])


def test_the_regularisation_is_the_diffusion_loss_of_the_anchors(
    tiny_pipeline: StableDiffusionPipeline,
    training: Callable[..., Ablation],
    make_request: Callable[..., AlignmentRequest],
) -> None:
    index, x, t, noise = training().noisy()
    anchors = [make_request().anchors[i] for i in index.tolist()]
    plain = (predict(tiny_pipeline, anchors, x, t) - noise).square().mean()
    with torch.no_grad():
        torch.testing.assert_close(training().regularisation(), plain)
        made = training()
        ablation, regularisation = made.loss(), made.regularisation()
        whole = training(regularisation=0.5).loss()
    torch.testing.assert_close(whole, ablation + 0.5 * regularisation)


def test_a_copy_of_the_network_is_held_only_where_it_is_needed(
    training: Callable[..., Ablation],
) -> None:
    assert training().frozen is not training().student
    assert training(variant="noise", keep_weight=1.0).frozen is not None
    for options in ({"teacher": "student"}, {"variant": "noise"}):
        with pytest.raises(RuntimeError, match="no copy"):
            _ = training(**options).frozen


@pytest.mark.heavy
@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "variant"), [("sd3", "noise"), ("flux", "model"), ("pixart", "noise")]
)
def test_transformers_learn_the_same_targets_of_the_text_s_own_keys_and_values(
    real_class: Callable[[str], Path],
    make_request: Callable[..., AlignmentRequest],
    kind: str,
    variant: str,
) -> None:
    pipe = load_pipeline(str(real_class(kind)))
    request = make_request(
        harmful=["a red triangle"], anchors=["a blue star"], sampler=sampler(kind)
    )
    options = CaOptions.model_validate({"batch": 2, "pool": 2, "variant": variant})
    made, again = Ablation(pipe, request, options), Ablation(pipe, request, options)
    view = made.view
    _, z = again.pool.pick(2, again.generator)
    objective = again.noiser.objective
    t = objective.times(2, again.generator)
    noise = torch.randn(z.shape, generator=again.generator)
    lesson = made.lesson()
    level = (t / 1000)[:, None, None, None]
    x = objective.noisy(z, noise, t) if kind == "pixart" else (1 - level) * z + level * noise
    torch.testing.assert_close(lesson.x, x)
    anchor = view.predictor(pipe.transformer, x, t, view.encode(["a blue star"] * 2))
    if variant == "noise":
        anchor = noise if kind == "pixart" else noise - z
    torch.testing.assert_close(lesson.target, anchor, atol=1e-5, rtol=1e-5)
    told = view.encode(["a red triangle"] * 2)
    torch.testing.assert_close(lesson.prompts.hidden, told.hidden)
    made.parameters()
    trained = {name for name, p in pipe.transformer.named_parameters() if p.requires_grad}
    ends = {".".join(name.split(".")[-3:-1]) for name in trained}
    own = (
        {"attn2.to_k", "attn2.to_v"} if kind == "pixart" else {"attn.add_k_proj", "attn.add_v_proj"}
    )
    assert ends == own
