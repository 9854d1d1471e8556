"""ESD's target and loss, by hand and at the start of training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch import Tensor

from spqr_checks.alignment.esd import EsdOptions
from spqr_checks.alignment.parts.embeddings import encode
from spqr_checks.alignment.parts.erasure import Erasure, erased, is_trained, trainable
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.settings import Sampler


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
    return EsdOptions(**({"latents": "pool", "batch": 4} | values))


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
@pytest.mark.parametrize("target", ["original", "current"])
def test_the_target_is_made_of_the_frozen_model_s_predictions(
    tiny_pipeline: StableDiffusionPipeline, target: Any, eta: float
) -> None:
    erasure = Erasure(tiny_pipeline, request(), options(target=target, eta=eta))
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
    index = torch.tensor([1, 0])

    def predicted(prompts: list[str]) -> Tensor:
        hidden = encode(tiny_pipeline, prompts).hidden
        return tiny_pipeline.unet(x, t, hidden).sample.detach()  # type: ignore[no-any-return]

    without = predicted(["", ""])
    start = without if target == "original" else predicted(["a green circle", "a blue triangle"])
    concept = predicted(["a small red triangle", "a red triangle"])
    expected = start - eta * (concept - without)
    with torch.no_grad():
        for parameter in tiny_pipeline.unet.parameters():
            parameter.mul_(3)  # the student moves, the target does not
    torch.testing.assert_close(erasure.target(index, x, t), expected, atol=1e-5, rtol=1e-5)


def test_the_target_is_the_same_for_noise_and_velocity_predictions() -> None:
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    generator = torch.Generator().manual_seed(0)
    x, *noises = (
        torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    t = torch.tensor([300])
    alpha = scheduler.alphas_cumprod[t].double().sqrt()
    sigma = (1 - alpha**2).sqrt()

    def velocity(noise: Tensor) -> Tensor:
        return alpha * noise - sigma * (x - sigma * noise) / alpha

    torch.testing.assert_close(
        erased(*(velocity(n) for n in noises), eta=1.7), velocity(erased(*noises, eta=1.7))
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


def test_at_the_start_the_base_s_difference_between_prompts_is_the_loss(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    given = options(target="original", eta=1.0)
    erasure = Erasure(tiny_pipeline, request(), given)
    with torch.no_grad():
        loss = erasure.loss()
    again = Erasure(tiny_pipeline, request(), given)
    index, x, t = again._noisy()
    hidden = encode(tiny_pipeline, request().harmful).hidden[index]
    empty = encode(tiny_pipeline, [""]).hidden.expand(4, -1, -1)
    with torch.no_grad():
        difference = (
            tiny_pipeline.unet(x, t, hidden).sample - tiny_pipeline.unet(x, t, empty).sample
        )
    torch.testing.assert_close(loss, 4 * difference.square().mean())


def test_at_the_start_there_is_nothing_to_preserve(tiny_pipeline: StableDiffusionPipeline) -> None:
    given = options(keep_weight=100.0)
    erasure = Erasure(tiny_pipeline, request(), given)
    keep, x, t = erasure._kept()
    with torch.no_grad():
        same = F.mse_loss(
            erasure.predictor(erasure.student, x, t, keep),
            erasure.predictor(erasure.frozen, x, t, keep),
        )
        for parameter in tiny_pipeline.unet.parameters():
            parameter.add_(0.1)
        moved = Erasure.loss(erasure)
        erasure.options = options(keep_weight=200.0)
        heavier = Erasure.loss(erasure)
    assert same == 0
    assert heavier > moved * 1.2


def test_prompts_to_keep_are_sometimes_the_empty_prompt(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    def empty_share(share: float) -> float:
        given = options(keep_weight=1.0, keep_batch=200, keep_unconditional=share)
        erasure = Erasure(tiny_pipeline, request(), given)
        keep, _, _ = erasure._kept()
        same = (keep.hidden == erasure.unconditional.hidden).flatten(1).all(1)
        return float(same.float().mean())

    assert empty_share(0.0) == 0
    assert empty_share(1.0) == 1
    assert 0.15 < empty_share(0.3) < 0.45


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_look_alikes_get_their_share_of_the_prompts_to_keep(
    tiny_pipeline: StableDiffusionPipeline, share: float
) -> None:
    near = "a red square"
    keep = [f"a circle {i}" for i in range(9)] + [near]
    given = options(keep_weight=1, keep_batch=400, lookalike_share=share, keep_unconditional=0)
    erasure = Erasure(tiny_pipeline, request(keep=keep, lookalikes=[near]), given)
    drawn, _, _ = erasure._kept()
    target = encode(tiny_pipeline, [near]).hidden
    found = torch.isclose(drawn.hidden, target, atol=1e-5).flatten(1).all(1).float().mean()
    assert found.item() == pytest.approx(share, abs=0.08)


def test_a_batch_may_show_what_the_anchor_shows(tiny_pipeline: StableDiffusionPipeline) -> None:
    erasure = Erasure(tiny_pipeline, request(), options(target="current", anchor_share=1.0))
    assert erasure.anchor_pool is not None
    erasure.concept_pool = (torch.full_like(erasure.concept_pool[0], 1e6), erasure.concept_pool[1])
    _, x, _ = erasure._noisy()
    assert x.abs().max() < 1e3
    erasure.options = options(target="current", anchor_share=0.0)
    _, x, _ = erasure._noisy()
    assert x.abs().max() > 1e3


def test_latents_follow_the_student_or_the_base(tiny_pipeline: StableDiffusionPipeline) -> None:
    def latents(which: Any) -> list[Tensor]:
        erasure = Erasure(tiny_pipeline, request(), options(latents=which))
        with torch.no_grad():
            for parameter in tiny_pipeline.unet.parameters():
                parameter.mul_(2)
        try:
            return [erasure._noisy()[1] for _ in range(4)]
        finally:
            with torch.no_grad():
                for parameter in tiny_pipeline.unet.parameters():
                    parameter.div_(2)

    student, base = latents("student"), latents("base")
    assert any(not torch.equal(a, b) for a, b in zip(student, base, strict=True))


@pytest.mark.parametrize(
    ("trains", "names"),
    [
        ("x", {"attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out"}),
        ("x-strict", {"attn2.to_k", "attn2.to_v"}),
    ],
)
def test_what_the_cross_attention_variants_train(
    tiny_pipeline: StableDiffusionPipeline, trains: Any, names: set[str]
) -> None:
    chosen = {n for n, _ in tiny_pipeline.unet.named_parameters() if is_trained(n, trains)}
    assert {".".join(n.split("transformer_blocks.0.")[1].split(".")[:2]) for n in chosen} == names


def test_the_variants_u_and_x_divide_the_network(tiny_pipeline: StableDiffusionPipeline) -> None:
    for name, _ in tiny_pipeline.unet.named_parameters():
        assert is_trained(name, "u") != is_trained(name, "x")
        assert is_trained(name, "all")


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("trains", ["x", "x-strict", "u", "all"])
def test_only_what_the_variant_trains_asks_for_gradients(
    tiny_pipeline: StableDiffusionPipeline, trains: Any, rank: int
) -> None:
    unet = tiny_pipeline.unet
    chosen = trainable(unet, options(trains=trains, rank=rank), seed=0)
    wanted = {n for n, p in unet.named_parameters() if p.requires_grad}
    assert len(wanted) == len(chosen) > 0
    if rank:
        assert all("lora" in name for name in wanted)
    assert all(is_trained(name, trains) for name in wanted)
