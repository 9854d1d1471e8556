"""ResAlign: its hypergradient against the closed form, and what a step leaves of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.resalign import Resilient, implicit_gradient, ramp
from spqr_checks.models.weights import copy_state

QUICK = {"steps": 2, "batch": 2, "pool": 2, "inner_steps": 2, "inner_rates": [1e-3]}


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Both sides are computed on one."""


def quadratic(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    h, g = root @ root.T, torch.randn(6, generator=generator, dtype=torch.float64)
    return h * scale / torch.linalg.eigvalsh(h)[-1], g


def test_the_iteration_finds_the_implicit_gradient_of_a_proximal_step() -> None:
    h, g = quadratic(0.5)
    (v,) = implicit_gradient([g], lambda v: [h @ v[0]], 60, 1e3) or []
    torch.testing.assert_close(v, torch.linalg.solve(torch.eye(6).double() + h, g))
    # and that is what moving θ does to a loss with gradient g at θ* = argmin ½ θ'Hθ' + |θ' − θ|²/2
    theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    moved = torch.linalg.solve(torch.eye(6).double() + h, theta)
    (theirs,) = torch.autograd.grad(g @ moved, theta)
    torch.testing.assert_close(v, theirs)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_few_iterations_are_the_sum_of_as_many_terms(iterations: int) -> None:
    h, g = quadratic(0.5)
    (v,) = implicit_gradient([g], lambda v: [h @ v[0]], iterations, 1e3) or []
    terms = [torch.linalg.matrix_power(-h, k) @ g for k in range(iterations)]
    torch.testing.assert_close(v, sum(terms))


def test_where_it_does_not_shrink_steps_are_halved_and_lead_to_the_same() -> None:
    h, g = quadratic(6.0)  # I − s (I + H) has norms of 6, 2.5, and with a quarter of 0.75
    (v,) = implicit_gradient([g], lambda v: [h @ v[0]], 400, 1e3) or []
    torch.testing.assert_close(v, torch.linalg.solve(torch.eye(6).double() + h, g))


@pytest.mark.parametrize("factor", [1e9, float("nan")])
def test_where_nothing_helps_there_is_none(factor: float) -> None:
    g = torch.ones(3)
    assert implicit_gradient([g], lambda v: [factor * v[0]], 5, 1e3) is None
    assert implicit_gradient([g], lambda v: v, 5, 1e-3) is None  # shorter than that it never is


def test_the_retain_weight_rises_by_a_sigmoid_in_the_second_half() -> None:
    assert [ramp(step, 160) for step in range(79)] == [0.0] * 79
    assert ramp(79, 160) == pytest.approx(1 / (1 + math.exp(5)))
    assert ramp(119, 160) == 0.5
    assert ramp(159, 160) == pytest.approx(1 / (1 + math.exp(-5)))


@pytest.mark.heavy
def test_a_simulated_fine_tuning_leaves_the_weights_as_they_were(
    tiny_pipeline: StableDiffusionPipeline, request_: AlignmentRequest
) -> None:
    training = Resilient(tiny_pipeline, request_, method("resalign").parse(QUICK))
    training.parameters()
    before = copy_state(tiny_pipeline)
    gradient = training.beyond()
    assert all(torch.equal(before[n], w) for n, w in copy_state(tiny_pipeline).items())
    assert all(parameter.grad is None for parameter in training.trained)
    assert sum(float(part.square().sum()) for part in gradient) > 0


def noted(training: Resilient, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What images are noised to, as the training goes on."""
    seen: list[Any] = []
    own = training.noisy
    monkeypatch.setattr(training, "noisy", lambda *a: seen.append(own(*a)) or seen[-1])
    return seen


@pytest.mark.heavy
def test_the_gradient_beyond_is_that_of_the_dense_hessian(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    request_: AlignmentRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe, plain = make_pipeline(), make_pipeline().unet.requires_grad_(False)
    given = QUICK | {"iterations": 4, "inner_optimisers": ["sgd"]}
    training = Resilient(pipe, request_, method("resalign").parse(given))
    pipe.unet.requires_grad_(False)
    names = ["mid_block.attentions.0.transformer_blocks.0.norm2.weight", "conv_out.bias"]
    for name in names:
        pipe.unet.get_parameter(name).requires_grad_(True)
    sizes = [pipe.unet.get_parameter(name).numel() for name in names]
    seen = noted(training, monkeypatch)
    ours = training.beyond()
    assert ours is not None

    def error(theta: Tensor, noised: Any, prompts: Tensor) -> Tensor:
        index, x, t, truth = noised
        weights = dict(zip(names, theta.split(sizes), strict=True))
        asked = prompts[index]
        return F.mse_loss(functional_call(plain, weights, (x, t, asked)).sample, truth)

    *inner, unlearnt, last = seen
    assert len(inner) == 2
    theta = torch.cat([plain.get_parameter(name) for name in names])
    for noised in inner:
        to_retain = partial(error, noised=noised, prompts=training.retained.hidden)
        theta = theta - 1e-3 * torch.func.grad(to_retain)(theta)
    (g,) = torch.autograd.grad(
        -error(theta.requires_grad_(), unlearnt, training.harmful.hidden), theta
    )
    to_retain = partial(error, noised=last, prompts=training.retained.hidden)
    with sdpa_kernel(SDPBackend.MATH):
        h = torch.autograd.functional.hessian(to_retain, theta.detach())
    assert h.abs().max() > 1e-3
    for halvings in range(6):
        s, v = 0.5**halvings, torch.zeros_like(g)
        growth = []
        for _ in range(4):
            moved = v - s * (h @ v + v)
            if v.any():
                lengths = zip(moved.split(sizes), v.split(sizes), strict=True)
                growth.append(sum(float(a.norm() / b.norm()) for a, b in lengths) / len(sizes))
            v = moved + g
        if max(growth) <= 1:
            break
    torch.testing.assert_close(torch.cat(ours), s * v, atol=1e-6, rtol=1e-3)
    assert not torch.allclose(torch.cat(ours), s * g, rtol=1e-2)  # H made a difference


def test_ascent_raises_the_error_of_the_concept_and_descent_along_it_would_not(
    tiny_pipeline: StableDiffusionPipeline,
    request_: AlignmentRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = method("resalign").parse(QUICK | {"lam": 0, "retain_weight": 0, "meta_rate": 1})
    options = options.model_copy(update={"retain_weight_end": 0.0})
    training = Resilient(tiny_pipeline, request_, options)
    training.parameters()
    seen = noted(training, monkeypatch)
    gradient = torch.autograd.grad(training.loss(), training.trained, allow_unused=True)
    index, x, t, truth = seen[0]

    def error() -> float:
        with torch.no_grad():
            asked = tiny_pipeline.unet(x, t, training.harmful.hidden[index]).sample
        return float(F.mse_loss(asked, truth))

    before = error()
    with torch.no_grad():
        for parameter, d in zip(training.trained, gradient, strict=True):
            if d is not None:
                parameter -= 1e-2 * d
    assert error() > before


@pytest.mark.heavy
def test_the_gradient_beyond_is_that_through_the_fine_tuning(
    make_pipeline: Callable[[], StableDiffusionPipeline], request_: AlignmentRequest
) -> None:
    # by one iteration: the gradient of the unlearning loss at fine-tuned weights, and no more
    given = QUICK | {"iterations": 1, "inner_optimisers": ["sgd"], "unlearning": "anchor"}
    options = method("resalign").parse(given)
    one, other = (Resilient(make_pipeline(), request_, options) for _ in range(2))
    one.parameters()
    other.parameters()
    state = one.generator.get_state()
    other.generator.set_state(state)
    found = one.beyond()
    other.simulate()
    theirs = torch.autograd.grad(other.unlearning(), other.trained, allow_unused=True)
    for ours, its in zip(found, theirs, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if its is None else its)


def test_the_terms_add_up_in_value_and_gradient(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    request_: AlignmentRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = method("resalign").parse(QUICK | {"lam": 0.6, "simulated": 3, "steps": 4})
    training = Resilient(make_pipeline(), request_, options)
    training.parameters()
    vector = [torch.full_like(p, 0.25) for p in training.trained]
    found: list[Any] = []
    monkeypatch.setattr(Resilient, "beyond", lambda self: found.pop())
    monkeypatch.setattr(Resilient, "unlearning", lambda self: 3 * self.trained[0].sum())
    monkeypatch.setattr(Resilient, "holding", lambda self: 2 * self.trained[0].sum())
    for step, weight in ((0, 1.6), (2, 1.8)):
        training.step = step
        found += [vector, None, copy.deepcopy(vector)]  # of one nothing was found
        loss = training.loss()
        value = 0.3 * (0.4 * 3 + 2 * weight) * float(training.trained[0].detach().sum())
        assert loss.item() == pytest.approx(value, rel=1e-4, abs=1e-4)
        gradients = torch.autograd.grad(loss, training.trained[:2])
        beyond = 0.3 * 0.6 * 2 / 3 * 0.25
        assert float(gradients[1].flatten()[0]) == pytest.approx(beyond)
        mine = 0.3 * (0.4 * 3 + 2 * weight) + beyond
        assert float(gradients[0].flatten()[0]) == pytest.approx(mine)


def test_what_is_held_is_what_the_original_predicts(
    tiny_pipeline: StableDiffusionPipeline,
    request_: AlignmentRequest,
) -> None:
    training = Resilient(tiny_pipeline, request_, method("resalign").parse(QUICK))
    assert training.holding().item() == 0
    with torch.no_grad():
        tiny_pipeline.unet.conv_out.bias += 0.5
    assert training.holding().item() == pytest.approx(0.25)
