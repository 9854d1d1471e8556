"""ESD: its target and loss, by hand and at the start of training, and its adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from alignments import prediction
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch import Tensor

from spqr_checks.alignment.esd import Erasure, EsdOptions, erased
from spqr_checks.alignment.registry import apply_alignment, method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.latents import Pool
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import encode


def request(seed: int = 3, **lists: list[str]) -> AlignmentRequest:
    values: dict[str, Any] = {
        "concepts": ["red triangle"],
        "harmful": ["a red triangle", "a small red triangle"],
        "anchors": ["a blue triangle", "a green circle"],
        "keep": ["a green circle", "a red square"],
    }
    return AlignmentRequest(
        **(values | lists), seed=seed, threads=1, sampler=Sampler(steps=2, guidance=2.0, batch=4)
    )


def options(**values: Any) -> EsdOptions:
    return EsdOptions.model_validate({"latents": "pool", "batch": 4} | values)


def first_loss(pipe: StableDiffusionPipeline, given: EsdOptions, seed: int = 3) -> float:
    with torch.no_grad():
        return float(Erasure(pipe, request(seed), given).loss())


def test_the_target_by_hand() -> None:
    u, c, start = (torch.tensor([v]) for v in (1.0, 3.0, 10.0))
    assert erased(u, c, u, 1.0).item() == -1.0  # 1 − 1·(3 − 1)
    assert erased(u, c, u, 2.0).item() == -3.0
    assert erased(u, c, start, 2.0).item() == 6.0
    assert erased(u, c, start, 0.0).item() == 10.0


@pytest.mark.parametrize("eta", [0.0, 1.5])
@pytest.mark.parametrize("target", ["original", "current", "wider", "anchor"])
def test_the_target_is_made_of_the_frozen_model_s_predictions(
    tiny_pipeline: StableDiffusionPipeline, target: Any, eta: float
) -> None:
    wide = {"target": "current", "erase_from": "a moon"}
    given = wide if target == "wider" else {"target": target}
    erasure = Erasure(tiny_pipeline, request(), options(eta=eta, **given))
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
    index = torch.tensor([1, 0])

    def predicted(prompts: list[str]) -> Tensor:
        hidden = encode(tiny_pipeline, prompts).hidden
        return tiny_pipeline.unet(x, t, hidden).sample.detach()  # type: ignore[no-any-return]

    without = predicted(["", ""])
    concept = predicted(["a small red triangle", "a red triangle"])
    anchor = predicted(["a green circle", "a blue triangle"])
    wider = predicted(["a moon", "a moon"])
    starts = {"original": without, "current": concept, "wider": wider, "anchor": anchor}
    expected = starts[target] - eta * (concept - without)
    with torch.no_grad():
        for parameter in tiny_pipeline.unet.parameters():
            parameter.mul_(3)  # the student moves, the target does not
    lesson, _ = erasure.answered(erasure.question(index, x, t))
    torch.testing.assert_close(lesson.target, expected, atol=1e-5, rtol=1e-5)


def test_the_target_is_the_same_for_noise_and_velocity_predictions() -> None:
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    generator = torch.Generator().manual_seed(0)
    x, without, concept, start = (
        torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    t = torch.tensor([300])
    alpha = scheduler.alphas_cumprod[t].double().sqrt()
    sigma = (1 - alpha**2).sqrt()

    def velocity(noise: Tensor) -> Tensor:
        moved: Tensor = alpha * noise - sigma * (x - sigma * noise) / alpha
        return moved

    torch.testing.assert_close(
        erased(velocity(without), velocity(concept), velocity(start), 1.7),
        velocity(erased(without, concept, start, 1.7)),
    )


@pytest.mark.parametrize("latents", ["pool", "base", "student"])
def test_at_the_start_the_loss_is_that_of_the_base_against_its_own_target(
    tiny_pipeline: StableDiffusionPipeline, latents: Any
) -> None:
    # student = base, so the loss is mean((1 + η)² (e(c) − e(""))²)
    plain = first_loss(tiny_pipeline, options(latents=latents, eta=0.0))
    assert plain > 0
    assert first_loss(tiny_pipeline, options(latents=latents, eta=1.0)) == pytest.approx(4 * plain)
    assert first_loss(tiny_pipeline, options(latents=latents, eta=2.0)) == pytest.approx(9 * plain)


def test_the_defaults_are_those_of_the_authors_code_for_that_target() -> None:
    esd = method("esd")
    names = ("eta", "latents", "steps", "learning_rate", "start_guidance", "trains")
    wanted = {
        "original": (1.0, "student", 1000, 1e-5, 3.0, "x"),
        "current": (2.0, "base", 200, 5e-5, 3.0, "x"),
    }
    for target, values in wanted.items():
        made = esd.parse({"target": target}).model_dump()
        assert tuple(made[name] for name in names) == values
    assert esd.parse({}) == esd.parse({"target": "original"})
    assert esd.parse({"target": "current", "eta": 0.5}).model_dump()["eta"] == 0.5
    adapter = method("modular-lora").parse({"esd": {"target": "current"}}).model_dump()["esd"]
    assert (adapter["eta"], adapter["latents"], adapter["steps"]) == (2.0, "base", 1500)


@pytest.mark.parametrize("latents", ["base", "pool"])
def test_a_wider_prompt_is_what_is_asked_and_what_latents_show(
    tiny_pipeline: StableDiffusionPipeline, latents: str
) -> None:
    wide = options(target="current", erase_from="a moon", latents=latents)
    moon = encode(tiny_pipeline, ["a moon"]).hidden
    asked = Erasure(tiny_pipeline, request(), wide).lesson().prompts.hidden
    torch.testing.assert_close(asked, moon.expand(4, -1, -1))
    # the latents are drawn as if the wider prompt were all that there is
    alone = request(harmful=["a moon", "a moon"])
    plain = Erasure(tiny_pipeline, alone, options(latents=latents))
    assert torch.equal(Erasure(tiny_pipeline, request(), wide).noisy()[1], plain.noisy()[1])


def test_a_wider_prompt_without_effect_is_refused() -> None:
    with pytest.raises(UserError, match="'erase_from' has an effect with target = 'current' only"):
        method("esd").parse({"erase_from": "a person"})


def test_a_batch_may_show_what_the_anchor_shows(tiny_pipeline: StableDiffusionPipeline) -> None:
    erasure = Erasure(tiny_pipeline, request(), options(target="anchor", anchor_share=1.0))
    assert erasure.anchor_pool is not None
    pool = erasure.concept_pool
    erasure.concept_pool = Pool(torch.full_like(pool.latents, 1e6), pool.shows)
    _, x, _ = erasure.noisy()
    assert x.abs().max() < 1e3
    erasure.options = options(target="anchor", anchor_share=0.0)
    _, x, _ = erasure.noisy()
    assert x.abs().max() > 1e3


def test_latents_follow_the_student_or_the_base(tiny_pipeline: StableDiffusionPipeline) -> None:
    def latents(which: Any) -> list[Tensor]:
        erasure = Erasure(tiny_pipeline, request(), options(latents=which))
        with torch.no_grad():
            for parameter in tiny_pipeline.unet.parameters():
                parameter.mul_(2)
        try:
            return [erasure.noisy()[1] for _ in range(4)]
        finally:
            with torch.no_grad():
                for parameter in tiny_pipeline.unet.parameters():
                    parameter.div_(2)

    student, base = latents("student"), latents("base")
    assert any(not torch.equal(a, b) for a, b in zip(student, base, strict=True))


@pytest.mark.heavy
@pytest.mark.parametrize("trains", ["x", "u", "all"])
def test_a_saved_adapter_predicts_the_same_and_carries_its_record(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    make_request: Callable[..., AlignmentRequest],
    tmp_path: Path,
    trains: str,
) -> None:
    pipe, again, esd = make_pipeline(), make_pipeline(), method("esd")
    given = {"rank": 2, "alpha": 4, "trains": trains, "latents": "pool", "steps": 3, "batch": 2}
    esd.align(pipe, make_request(), esd.parse(given | {"learning_rate": 1e-2}), tmp_path)
    assert not (tmp_path / "denoiser.safetensors").exists()
    apply_alignment(again, tmp_path)
    torch.testing.assert_close(prediction(again), prediction(pipe), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(prediction(again), prediction(make_pipeline()), atol=1e-3)
    record = json.loads((tmp_path / "alignment.json").read_text(encoding="utf-8"))
    assert record["name"] == "esd"
    assert record["options"]["alpha"] == 4
