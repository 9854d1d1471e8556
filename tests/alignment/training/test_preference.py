"""Diffusion-DPO: its invariants, and one step of it on a pipeline of the real classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.noising import Noiser
from spqr_checks.alignment.training.options import PreferenceOptions
from spqr_checks.alignment.training.pair_images import Pairs
from spqr_checks.alignment.training.preference import Preference, margin, preference_loss
from spqr_checks.alignment.training.preservation import PriorPreservation
from spqr_checks.alignment.training.unet import ADAPTER, adapter_off
from spqr_checks.alignment.training.views import UNetView
from spqr_checks.finetuning.objectives import Denoising
from spqr_checks.models import adapters

MakeRequest = Callable[..., AlignmentRequest]
NAME = ADAPTER
errors = st.lists(st.floats(0, 2, width=32), min_size=4, max_size=4).map(torch.tensor)
betas = st.floats(1, 1e4)


def drawn(n: int, seed: int) -> Tensor:
    return torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def made_up_pairs(n: int = 3) -> Pairs:
    captions = ["a red triangle", "a small red triangle", "a blue circle"][:n]
    return Pairs(drawn(n, 1), drawn(n, 2), captions, captions)


@pytest.fixture
def objective(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest
) -> Callable[..., Preference]:
    """DPO on made-up pairs, with a fresh adapter (B = 0) on the pipeline."""
    adapters.add_lora(tiny_pipeline.unet, 2, 2, adapters.TARGETS, 0, NAME)

    def make(pairs: Pairs | None = None, **changes: Any) -> Preference:
        given = {"beta": 100.0, "batch": 8, "caption_dropout": 0.0} | changes
        own = {name: given.pop(name) for name in ("share", "focus", "weights") if name in given}
        options = PreferenceOptions.model_validate(given)
        request = make_request()
        view = UNetView(tiny_pipeline, request.sampler)
        return Preference(view, request, pairs or made_up_pairs(), options, **own)

    return make


def move(pipe: StableDiffusionPipeline) -> None:
    """Gives the adapter an effect."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, parameter in adapters.adapter_tensors(pipe.unet, NAME).items():
            if "lora_B" in key:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


def predicts(pipe: StableDiffusionPipeline, kind: str) -> None:
    """Lets the pipeline's network be one that predicts the noise, the velocity or the image."""
    pipe.scheduler = DDPMScheduler(prediction_type=kind)


def fixed(objective: Preference, t: int = 500) -> Tensor:
    """Margins of all pairs at one timestep and one noise."""
    n = len(objective.pairs)
    return objective.margins(torch.arange(n), torch.full((n,), t), drawn(n, 3))


# ---- the formula -----------------------------------------------------------------------------


@given(errors, errors, errors, errors, betas)
def test_swapping_the_labels_flips_the_sign(
    w: Tensor, lo: Tensor, rw: Tensor, rl: Tensor, beta: float
) -> None:
    torch.testing.assert_close(margin(w, lo, rw, rl, beta), -margin(lo, w, rl, rw, beta))


@given(errors, errors, errors, errors, st.floats(-3, 3), betas)
def test_a_constant_added_to_all_errors_changes_nothing(
    w: Tensor, lo: Tensor, rw: Tensor, rl: Tensor, constant: float, beta: float
) -> None:
    plain = margin(w, lo, rw, rl, beta)
    shifted = margin(w + constant, lo + constant, rw + constant, rl + constant, beta)
    torch.testing.assert_close(plain, shifted, atol=2e-6 * beta, rtol=0)


@given(errors, errors, betas)
def test_a_model_that_is_the_reference_has_loss_log_2(w: Tensor, lo: Tensor, beta: float) -> None:
    inside = margin(w, lo, w, lo, beta)
    assert float(preference_loss(inside)) == pytest.approx(math.log(2), rel=1e-6)


def test_the_formula_is_that_of_the_paper() -> None:
    w, lo, rw, rl = (torch.tensor([value]) for value in (0.1, 0.4, 0.2, 0.3))
    inside = margin(w, lo, rw, rl, beta=10)
    assert float(inside) == pytest.approx(-5 * ((0.1 - 0.4) - (0.2 - 0.3)))
    assert float(preference_loss(inside)) == pytest.approx(math.log1p(math.exp(-1.0)))


def test_focus_weighs_pairs_by_how_wrong_they_are_and_is_no_objective() -> None:
    inside = torch.tensor([2.0, -2.0], requires_grad=True)
    loss = preference_loss(inside, focus=2.0)
    p = torch.sigmoid(inside.detach())
    assert loss.item() == pytest.approx(float(((1 - p) ** 2 * -p.log()).mean()))
    (gradient,) = torch.autograd.grad(loss, inside)
    torch.testing.assert_close(gradient, -((1 - p) ** 3) / 2)


def test_weights_multiply_the_losses_of_pairs() -> None:
    inside = torch.tensor([1.0, -1.0])
    weighted = preference_loss(inside, torch.tensor([2.0, 0.0]))
    assert float(weighted) == pytest.approx(math.log1p(math.exp(-1.0)))


# ---- on a pipeline ---------------------------------------------------------------------------


def test_at_the_start_every_margin_is_nought(objective: Callable[..., Preference]) -> None:
    start = objective()
    assert torch.equal(fixed(start), torch.zeros(3))
    assert start.loss().item() == pytest.approx(math.log(2), rel=1e-6)
    assert start.accuracies == [0.0]


def test_the_reference_is_the_network_without_its_adapter(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    unet, x, hidden = tiny_pipeline.unet, drawn(1, 0), torch.ones(1, 32, 16)
    adapters.add_lora(unet, 1, 1, adapters.TARGETS, 0, "beside")
    with torch.no_grad():
        for parameter in adapters.adapter_tensors(unet, "beside").values():
            parameter.add_(0.1)
        before = unet(x, 5, hidden).sample
        adapters.add_lora(unet, 2, 2, adapters.TARGETS, 0, NAME)
        move(tiny_pipeline)
        adapted = unet(x, 5, hidden).sample
        with adapter_off(unet):
            assert torch.equal(unet(x, 5, hidden).sample, before)
        assert torch.equal(unet(x, 5, hidden).sample, adapted)
    assert not torch.equal(adapted, before)
    trained = {name for name, p in unet.named_parameters() if p.requires_grad}
    assert len(trained) == len(adapters.adapter_tensors(unet, NAME))


def test_swapped_pairs_have_margins_of_the_other_sign(
    tiny_pipeline: StableDiffusionPipeline, objective: Callable[..., Preference]
) -> None:
    move(tiny_pipeline)
    pairs = made_up_pairs()
    swapped = Pairs(pairs.losers, pairs.winners, pairs.captions, pairs.captions)
    margins = fixed(objective(pairs))
    assert margins.abs().mean().item() > 0.1
    torch.testing.assert_close(fixed(objective(swapped)), -margins, atol=1e-4, rtol=1e-4)


def test_the_images_of_a_pair_share_noise_and_timestep(
    tiny_pipeline: StableDiffusionPipeline, objective: Callable[..., Preference]
) -> None:
    move(tiny_pipeline)
    same = drawn(3, 1)
    twins = objective(Pairs(same, same, *(["a red circle"] * 3,) * 2), batch=6)
    # whatever was drawn, an image is not preferred to itself
    assert twins.loss().item() == pytest.approx(math.log(2), abs=1e-4)


def test_a_step_along_the_gradient_prefers_the_winners(
    objective: Callable[..., Preference],
) -> None:
    start = objective(beta=1.0)
    trained = [p for p in start.network.parameters() if p.requires_grad]
    fixed(start).mean().neg().backward()
    with torch.no_grad():
        for parameter in trained:
            if parameter.grad is not None:
                step = parameter.grad / parameter.grad.norm().clamp(min=1e-12)
                parameter.sub_(0.05 * step)
    assert fixed(start).mean().item() > 1e-5


def test_a_dropped_caption_is_the_empty_one(
    tiny_pipeline: StableDiffusionPipeline, objective: Callable[..., Preference]
) -> None:
    move(tiny_pipeline)
    pairs = made_up_pairs()
    empty = Pairs(pairs.winners, pairs.losers, [""] * 3, [""] * 3)
    dropped = objective(pairs, caption_dropout=1.0).loss()
    assert torch.equal(dropped, objective(empty, caption_dropout=0.0).loss())
    assert not torch.equal(dropped, objective(pairs, caption_dropout=0.0).loss())


def test_timesteps_come_from_the_clean_share_of_the_schedule(
    objective: Callable[..., Preference], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    some = objective(share=0.3, batch=400)

    def margins(pick: Tensor, t: Tensor, *_: Any) -> Tensor:
        seen.append(t)
        return torch.zeros(len(pick))

    monkeypatch.setattr(some, "margins", margins)
    some.loss()
    assert int(seen[0].max()) < 300
    assert int(seen[0].max()) > 280
    assert int(seen[0].min()) < 20


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_errors_of_every_kind_of_network_can_be_told_as_errors_of_the_noise(
    tiny_pipeline: StableDiffusionPipeline, kind: str
) -> None:
    predicts(tiny_pipeline, kind)
    noiser = Noiser(Denoising(tiny_pipeline))
    t = torch.tensor([10, 500, 990])
    z, noise, wrong = drawn(3, 0).double(), drawn(3, 1).double(), drawn(3, 2).double()
    kept = tiny_pipeline.scheduler.alphas_cumprod.double()[t][:, None, None, None]
    x = kept.sqrt() * z + (1 - kept).sqrt() * noise
    # a prediction that is wrong by ``wrong``, told as a prediction of the noise
    predicted = {
        "epsilon": noise + wrong,
        "v_prediction": kept.sqrt() * (kept.sqrt() * noise - (1 - kept).sqrt() * z + wrong)
        + (1 - kept).sqrt() * x,
        "sample": (x - kept.sqrt() * (z + wrong)) / (1 - kept).sqrt(),
    }[kind]
    told = wrong.square().mean(dim=(1, 2, 3)) * noiser.factor("epsilon", t)
    torch.testing.assert_close(
        told, (predicted - noise).square().mean(dim=(1, 2, 3)), rtol=1e-5, atol=0
    )
    assert torch.equal(noiser.factor("native", t), torch.ones(3))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_network_is_compared_with_its_own_target(
    tiny_pipeline: StableDiffusionPipeline,
    objective: Callable[..., Preference],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    predicts(tiny_pipeline, kind)
    chosen = objective()
    scheduler, t, noise = tiny_pipeline.scheduler, torch.full((2,), 300), drawn(2, 7)
    z = chosen.pairs.winners[:2]
    target = noise if kind == "epsilon" else scheduler.get_velocity(z, noise, t)
    monkeypatch.setattr(chosen.view, "predictor", lambda *_: target + 0.5)
    found = chosen._errors(z, t, noise, chosen.captions[:2])
    torch.testing.assert_close(found, torch.full((2,), 0.25))


def test_prior_preservation_is_nought_until_the_adapter_acts(
    tiny_pipeline: StableDiffusionPipeline, make_request: MakeRequest
) -> None:
    adapters.add_lora(tiny_pipeline.unet, 2, 2, adapters.TARGETS, 0, NAME)
    request = make_request()
    view = UNetView(tiny_pipeline, request.sampler)
    prior = PriorPreservation(view, request, 2, "native")
    assert prior.t.tolist() == [999, 999]
    assert prior.loss().item() == 0
    move(tiny_pipeline)
    loss = prior.loss()
    assert loss.item() > 0
    loss.backward()
    assert any(p.grad is not None for p in tiny_pipeline.unet.parameters())
