"""RegMean of LoRAs: the least-squares solution, and what it does at its ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spqr_checks.alignment.training.low_rank import Lora
from spqr_checks.alignment.training.regmean import Grams, regmean

OUT, IN, RANK, TOKENS = 5, 6, 2, 40


def problem(experts: int) -> tuple[list[Lora], list[Tensor], list[Grams]]:
    """Experts, what each is given, and the means of x xᵀ."""
    g = torch.Generator().manual_seed(1)
    loras, inputs = [], []
    for _ in range(experts):
        a, b = torch.randn(RANK, IN, generator=g), torch.randn(OUT, RANK, generator=g)
        loras.append(Lora({"layer": (a, b)}, 3.0))
        inputs.append(torch.randn(TOKENS, IN, generator=g).double())
    return loras, inputs, [{"layer": x.T @ x / TOKENS} for x in inputs]


def test_it_is_nearest_to_every_expert_on_its_own_inputs_and_to_nothing_on_what_is_kept() -> None:
    loras, inputs, grams = problem(3)
    *own, kept = inputs
    merged = regmean(loras[:2], grams[:2], grams[2], scale=1.0, keep_weight=0.7, ridge=0.01).delta(
        "layer"
    )
    # stacked rows sqrt(weight) x → sqrt(weight) ΔW_k x, by LAPACK
    rows = [own[0], own[1], 0.7**0.5 * kept, (0.01 * TOKENS) ** 0.5 * torch.eye(IN).double()]
    values = [x @ lora.delta("layer").double().T for x, lora in zip(own, loras, strict=False)]
    values += [torch.zeros(TOKENS, OUT).double(), torch.zeros(IN, OUT).double()]
    solved = torch.linalg.lstsq(torch.cat(rows), torch.cat(values)).solution.T
    torch.testing.assert_close(merged.double(), solved, atol=1e-5, rtol=1e-4)


def test_one_expert_stays_itself_and_equal_experts_too() -> None:
    loras, _, grams = problem(2)
    for own, its in (([loras[0]], grams[:1]), ([loras[0]] * 2, grams)):
        merged = regmean(own, its, None, scale=1.0, keep_weight=0.0, ridge=1e-9)
        torch.testing.assert_close(
            merged.delta("layer"), loras[0].delta("layer"), atol=1e-4, rtol=1e-4
        )


def test_experts_whose_inputs_do_not_overlap_both_stay() -> None:
    loras, inputs, _ = problem(2)
    halves = [
        torch.diag(torch.tensor(d).double()) for d in ([1.0] * 3 + [0] * 3, [0] * 3 + [1.0] * 3)
    ]
    own = [x @ half for x, half in zip(inputs, halves, strict=True)]
    grams = [{"layer": x.T @ x / TOKENS} for x in own]
    merged = regmean(loras, grams, None, scale=1.0, keep_weight=0.0, ridge=1e-9).delta("layer")
    for x, lora in zip(own, loras, strict=True):
        wanted = x @ lora.delta("layer").double().T
        torch.testing.assert_close(x @ merged.double().T, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_the_scale_multiplies(scale: float) -> None:
    loras, _, grams = problem(2)
    one, more = (
        regmean(loras, grams, None, scale=s, keep_weight=0.0, ridge=0.1).delta("layer")
        for s in (1.0, scale)
    )
    torch.testing.assert_close(more, scale * one)


def test_a_huge_weight_of_what_is_kept_leaves_nothing() -> None:
    loras, _, grams = problem(3)
    merged = regmean(loras[:2], grams[:2], grams[2], scale=1.0, keep_weight=1e9, ridge=0.1)
    assert merged.delta("layer").abs().max() < 1e-5
