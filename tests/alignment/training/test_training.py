"""The optimisation loop: schedule, reports, and what it refuses to end with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from spqr_checks.alignment.request import Progress, Report, no_report
from spqr_checks.alignment.training.options import TrainingOptions
from spqr_checks.alignment.training.training import learning_rate_factor, optimise
from spqr_checks.errors import UserError


def run(
    loss_of: Callable[[nn.Parameter], Tensor],
    steps: int = 30,
    report: Report = no_report,
    parameter: nn.Parameter | None = None,
    learning_rate: float = 0.1,
    **more: Any,
) -> nn.Parameter:
    parameter = nn.Parameter(torch.tensor([1.0])) if parameter is None else parameter
    optimise(
        [parameter],
        lambda: loss_of(parameter),
        TrainingOptions(steps=steps),
        learning_rate=learning_rate,
        report=report,
        **more,
    )
    return parameter


def test_the_loss_is_descended() -> None:
    parameter = run(lambda p: ((p - 3) ** 2).sum(), steps=200)
    assert abs(parameter.item() - 3) < 0.05


def test_the_first_step_is_adam_s() -> None:
    parameter = run(lambda p: (5 * p).sum(), steps=1)
    assert parameter.item() == pytest.approx(1 - 0.1)  # lr · sign(gradient)


def test_weights_decay_before_the_step() -> None:
    parameter = run(lambda p: (5 * p).sum(), steps=1, weight_decay=0.5)
    assert parameter.item() == pytest.approx(1 * (1 - 0.1 * 0.5) - 0.1)


def test_accumulated_batches_make_the_step_of_one_that_holds_them_all() -> None:
    seen: list[Progress] = []

    def gradient(size: int, accumulation: int) -> float:
        parameter = nn.Parameter(torch.tensor([1.0]))
        parts = iter(torch.arange(1.0, 7.0).split(size))
        optimise(
            [parameter],
            lambda: (next(parts) * parameter).square().mean(),
            TrainingOptions(steps=1, accumulation=accumulation),
            learning_rate=1e-3,
            report=seen.append,
        )
        assert parameter.grad is not None
        return float(parameter.grad)

    assert gradient(2, 3) == pytest.approx(gradient(6, 1))
    assert seen[0].loss == pytest.approx(91 / 6)


def test_adafactor_takes_the_learning_rate_as_it_is() -> None:
    # the first step is as long as Adam's, whatever the weights' size
    parameter = nn.Parameter(torch.tensor([3.0, -2.0]))
    run(lambda p: (5 * p).sum(), steps=1, parameter=parameter, adafactor=True, weight_decay=0.5)
    assert parameter.tolist() == pytest.approx([3 * 0.95 - 0.1, -2 * 0.95 - 0.1])


def test_gradients_are_clipped_together() -> None:
    one, other = (nn.Parameter(torch.tensor([1.0])) for _ in range(2))
    seen: list[list[float]] = []

    def stepped() -> None:
        seen.append([float(p.grad) for p in (one, other) if p.grad is not None])

    for clip in (None, 1.0, 100.0):
        optimise(
            [one, other],
            lambda: (3 * one + 4 * other).sum(),
            TrainingOptions(steps=1),
            learning_rate=0.1,
            report=no_report,
            clip=clip,
            stepped=stepped,
        )
    assert seen[0] == seen[2] == [3, 4]
    assert seen[1] == pytest.approx([0.6, 0.8], abs=1e-4)


def test_who_follows_the_training_is_called_after_every_step() -> None:
    values: list[float] = []
    parameter = nn.Parameter(torch.tensor([1.0]))
    run(
        lambda p: (5 * p).sum(),
        steps=3,
        parameter=parameter,
        stepped=lambda: values.append(parameter.item()),
    )
    assert values == pytest.approx([0.9, 0.8, 0.7], abs=1e-5)


def test_a_loss_that_is_not_a_number_ends_the_training() -> None:
    factors = iter([1.0, 1.0, 1.0, float("nan")])
    with pytest.raises(UserError, match="loss is nan in step 4 of 30"):
        run(lambda p: p.sum() * next(factors))


def test_a_parameter_that_blows_up_in_the_last_step_is_noticed() -> None:
    def loss(p: Tensor) -> Tensor:
        return torch.sqrt(p - 1).sum()  # finite at 1, its gradient is not

    with pytest.raises(UserError, match="parameter is not finite"):
        run(loss, steps=1)


def test_speed_memory_and_the_last_step_are_reported() -> None:
    seen: list[Progress] = []
    run(lambda p: (p**2).sum(), steps=45, report=seen.append)
    assert [p.step for p in seen] == [1, 20, 40, 45]
    assert all(p.steps == 45 and p.steps_per_second > 0 for p in seen)
    assert all(p.peak_memory > 10_000_000 for p in seen)  # bytes: torch alone takes more
    assert seen[-1].loss < seen[0].loss


def test_learning_rate_rises_linearly_and_falls_as_half_a_cosine() -> None:
    def factors(schedule: Literal["constant", "cosine"]) -> list[float]:
        options = TrainingOptions(steps=11, warmup=1, schedule=schedule)
        return [learning_rate_factor(step, options) for step in (0, 1, 6, 10)]

    assert factors("constant") == [0.5, 1, 1, 1]
    assert factors("cosine") == pytest.approx([0.5, 1, 0.5, 0.0244717], rel=1e-5)
