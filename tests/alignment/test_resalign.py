"""ResAlign: its hypergradient against the closed form, and what a step leaves of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.registry import method
from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.resalign import Resilient, implicit_gradient
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
    (v,) = implicit_gradient([g], lambda v: [h @ v[0]], 1.0, 60, 1e3)
    torch.testing.assert_close(v, torch.linalg.solve(torch.eye(6).double() + h, g))
    # and that is what moving θ does to a loss with gradient g at θ* = argmin ½ θ'Hθ' + |θ' − θ|²/2
    theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    moved = torch.linalg.solve(torch.eye(6).double() + h, theta)
    (theirs,) = torch.autograd.grad(g @ moved, theta)
    torch.testing.assert_close(v, theirs)


def test_where_it_does_not_shrink_the_step_is_halved() -> None:
    h, g = quadratic(6.0)  # γ H has a norm of 6, then 3, 1.5 and 0.75
    (v,) = implicit_gradient([g], lambda v: [h @ v[0]], 1.0, 80, 1e3)
    torch.testing.assert_close(v, torch.linalg.solve(torch.eye(6).double() + h / 8, g))


@pytest.mark.parametrize("factor", [1e9, float("nan")])
def test_where_nothing_helps_the_direct_gradient_is_left(factor: float) -> None:
    g = torch.ones(3)
    (v,) = implicit_gradient([g], lambda v: [factor * v[0]], 1.0, 5, 1e3)
    assert v is g


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


def test_the_gradient_beyond_is_that_through_the_fine_tuning(
    make_pipeline: Callable[[], StableDiffusionPipeline], request_: AlignmentRequest
) -> None:
    # without iterations: the gradient of the unlearning loss at fine-tuned weights, and no more
    given = QUICK | {"iterations": 0, "inner_optimisers": ["sgd"], "unlearning": "anchor"}
    options = method("resalign").parse(given)
    one, other = (Resilient(make_pipeline(), request_, options) for _ in range(2))
    one.parameters()
    other.parameters()
    state = one.generator.get_state()
    other.generator.set_state(state)
    found = one.beyond()
    assert other.simulate() == pytest.approx(2e-3)
    theirs = torch.autograd.grad(other.unlearning(), other.trained, allow_unused=True)
    for ours, its in zip(found, theirs, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if its is None else its)


def test_the_terms_add_up_in_value_and_gradient(
    make_pipeline: Callable[[], StableDiffusionPipeline],
    request_: AlignmentRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = method("resalign").parse(QUICK | {"lam": 0.5, "simulated": 2})
    training = Resilient(make_pipeline(), request_, options)
    training.parameters()
    vector = [torch.full_like(p, 0.25) for p in training.trained]
    monkeypatch.setattr(Resilient, "beyond", lambda self: copy.deepcopy(vector))
    monkeypatch.setattr(Resilient, "unlearning", lambda self: 3 * self.trained[0].sum())
    monkeypatch.setattr(Resilient, "retaining", lambda self: 2 * self.trained[0].sum())
    for step, weight in ((0, 1.6), (1, 2.0)):
        training.step = step
        loss = training.loss()
        value = (3 + 2 * weight) * float(training.trained[0].sum())
        assert loss.item() == pytest.approx(value, rel=1e-4, abs=1e-4)
        gradients = torch.autograd.grad(loss, training.trained[:2])
        assert float(gradients[0].flatten()[0]) == pytest.approx(3 + 2 * weight + 0.5 * 0.25)
        assert float(gradients[1].flatten()[0]) == pytest.approx(0.5 * 0.25)
