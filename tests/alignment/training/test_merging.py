"""Merges of LoRA experts: what must hold whatever the experts are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.utils import merge_utils

from spqr_checks.alignment.training import merging
from spqr_checks.alignment.training.activations import Meter, Signals
from spqr_checks.alignment.training.low_rank import Lora
from spqr_checks.alignment.training.merging import Merged, Rule, merge

SHAPES = {"one": (5, 4), "two": (3, 6)}
CO_MERGES: list[dict[str, Any]] = [
    {"granularity": granularity, "statistic": statistic}
    for granularity in ("row", "matrix", "factor_rows", "entry")
    for statistic in ("vote", "mean")
]
seeds = st.integers(0, 2**32)
numbers = st.integers(1, 4)
co_merges = st.sampled_from(CO_MERGES)


def made_up(seed: int, rank: int = 2, alpha: float = 3.0) -> Lora:
    generator = torch.Generator().manual_seed(seed)
    return Lora(
        {
            layer: (
                torch.randn(rank, into, generator=generator),
                torch.randn(out, rank, generator=generator),
            )
            for layer, (out, into) in SHAPES.items()
        },
        alpha,
    )


def nought(lora: Lora) -> Lora:
    return Lora({n: (a, torch.zeros_like(b)) for n, (a, b) in lora.factors.items()}, lora.alpha)


def signals(experts: list[Lora], seed: int = 0) -> Mapping[str, Signals]:
    meter, generator = Meter(experts), torch.Generator().manual_seed(seed)
    for _ in range(3):
        for layer, (_, into) in SHAPES.items():
            meter.measure(layer, torch.randn(4, 5, into, generator=generator))
    return meter.layers


def co_merged(experts: list[Lora], options: Mapping[str, Any]) -> Merged:
    return merge(experts, "co-merge", signals=signals(experts), **options)


def assert_same(left: Lora, right: Lora) -> None:
    for layer in SHAPES:
        torch.testing.assert_close(left.delta(layer), right.delta(layer), atol=2e-4, rtol=2e-4)


@given(seeds, co_merges)
def test_one_expert_stays_as_it_is(seed: int, options: dict[str, Any]) -> None:
    assert_same(co_merged([made_up(seed)], options).lora, made_up(seed))


@pytest.mark.parametrize("rule", ["average", "sum", "ties"])
def test_one_expert_stays_as_it_is_in_the_other_merges(rule: Rule) -> None:
    assert_same(merge([made_up(1)], rule, density=1.0).lora, made_up(1))


@given(seeds, numbers, co_merges)
def test_experts_that_are_alike_give_themselves(seed: int, n: int, options: dict[str, Any]) -> None:
    assert_same(co_merged([made_up(seed)] * n, options).lora, made_up(seed))


@pytest.mark.parametrize("rule", ["average", "ties"])
def test_experts_that_are_alike_give_themselves_in_the_means(rule: Rule) -> None:
    assert_same(merge([made_up(1)] * 3, rule, density=1.0).lora, made_up(1))


@given(seeds, numbers, st.sampled_from(["vote", "mean"]))
def test_every_unit_goes_to_exactly_one_expert(seed: int, n: int, statistic: Any) -> None:
    experts = [made_up(seed + k) for k in range(n)]
    for layer, measured in signals(experts).items():
        masks = merging.masks(measured, statistic)
        assert masks.shape == (n, SHAPES[layer][0])
        assert set(masks.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(masks.sum(dim=0), torch.ones(SHAPES[layer][0]))


@pytest.mark.heavy
@given(seeds, co_merges, st.permutations(range(3)))
def test_the_order_of_the_experts_changes_nothing(
    seed: int, options: dict[str, Any], order: list[int]
) -> None:
    # equal votes, which do occur, fall back on the mean, which is equal for no two of them
    experts = [made_up(seed + k) for k in range(3)]
    turned = [experts[k] for k in order]
    assert_same(co_merged(experts, options).lora, co_merged(turned, options).lora)


@given(seeds, st.sampled_from(["average", "sum", "ties"]), st.permutations(range(3)))
def test_the_order_changes_nothing_in_the_other_merges(
    seed: int, rule: Any, order: list[int]
) -> None:
    experts = [made_up(seed + k) for k in range(3)]
    assert_same(merge(experts, rule).lora, merge([experts[k] for k in order], rule).lora)


@given(seeds, co_merges, st.integers(0, 2))
def test_an_expert_that_does_nothing_never_wins(
    seed: int, options: dict[str, Any], place: int
) -> None:
    acting = made_up(seed)
    experts = [nought(made_up(seed + 1)), nought(made_up(seed + 2))]
    experts.insert(place, acting)
    assert_same(co_merged(experts, options).lora, acting)


@given(seeds, numbers, st.sampled_from(["vote", "mean"]))
def test_by_row_the_lora_is_the_masked_sum_of_the_updates(
    seed: int, n: int, statistic: Any
) -> None:
    experts = [made_up(seed + k) for k in range(n)]
    measured = signals(experts)
    merged = merge(experts, "co-merge", signals=measured, statistic=statistic)
    assert merged.error == 0
    assert merged.lora.rank == n * 2
    assert merged.lora.scale == pytest.approx(experts[0].scale)
    for layer in SHAPES:
        masks = merging.masks(measured[layer], statistic)
        wanted = sum(m[:, None] * e.delta(layer) for m, e in zip(masks, experts, strict=True))
        torch.testing.assert_close(merged.lora.delta(layer), wanted, atol=1e-5, rtol=1e-5)


@given(seeds, numbers)
def test_average_and_sum_are_exact(seed: int, n: int) -> None:
    experts = [made_up(seed + k) for k in range(n)]
    for rule, weight in (("average", 1 / n), ("sum", 1.0)):
        merged = merge(experts, rule)  # type: ignore[arg-type]
        assert merged.lora.rank == n * 2
        for layer in SHAPES:
            wanted = weight * sum(expert.delta(layer) for expert in experts)
            torch.testing.assert_close(merged.lora.delta(layer), wanted, atol=1e-5, rtol=1e-5)


@given(seeds)
def test_by_matrix_each_layer_is_one_expert_s(seed: int) -> None:
    experts = [made_up(seed + k) for k in range(3)]
    merged = co_merged(experts, {"granularity": "matrix"}).lora
    assert merged.rank == 2
    for layer in SHAPES:
        assert any(torch.equal(merged.delta(layer), e.delta(layer)) for e in experts)


@given(seeds)
def test_by_rows_of_the_factors_each_row_is_one_expert_s(seed: int) -> None:
    experts = [made_up(seed + k) for k in range(3)]
    merged = co_merged(experts, {"granularity": "factor_rows"}).lora
    assert (merged.rank, merged.alpha) == (2, 3.0)
    for layer, factors in merged.factors.items():
        for side, factor in enumerate(factors):
            for number, row in enumerate(factor):
                assert any(torch.equal(row, e.factors[layer][side][number]) for e in experts)


@given(seeds)
def test_by_entry_the_largest_wins(seed: int) -> None:
    experts = [made_up(seed + k) for k in range(3)]
    merged = merge(experts, "co-merge", granularity="entry", rank=6)
    for layer in SHAPES:
        stacked = torch.stack([expert.delta(layer) for expert in experts])
        found = merged.lora.delta(layer).abs()
        torch.testing.assert_close(found, stacked.abs().amax(dim=0), atol=1e-3, rtol=1e-3)


def test_a_vote_asks_how_often_and_a_mean_how_much() -> None:
    often = Lora({"x": (torch.tensor([[1.0, 0.0]]), torch.ones(1, 1))}, 1.0)
    much = Lora({"x": (torch.tensor([[0.0, 9.0]]), torch.ones(1, 1))}, 1.0)
    meter = Meter([often, much])
    meter.measure("x", torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]]))
    for statistic, wanted in (("vote", often), ("mean", much)):
        merged = merge([often, much], "co-merge", signals=meter.layers, statistic=statistic)  # type: ignore[arg-type]
        assert torch.equal(merged.lora.delta("x"), wanted.delta("x"))


@given(seeds, st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_ties_is_what_peft_makes_of_it(seed: int, density: float) -> None:
    deltas = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed))
    wanted = merge_utils.ties(list(deltas), torch.ones(3), density)
    torch.testing.assert_close(merging.ties(deltas, density), wanted)


def test_ties_trims_elects_and_averages() -> None:
    deltas = torch.tensor([[[4.0, -3.0, 0.5, 1.0]], [[2.0, 5.0, 0.1, -0.2]]])
    # half of each stays: 4, -3 and 2, 5; the second entry's sign is that of -3 + 5
    assert merging.ties(deltas, 0.5).tolist() == [[3.0, 5.0, 0.0, 0.0]]


@given(seeds, st.sampled_from(["average", "ties"]), st.integers(1, 3))
def test_a_cut_merge_says_how_far_it_is_from_the_whole(seed: int, rule: Any, rank: int) -> None:
    experts = [made_up(seed + k) for k in range(3)]
    whole, cut = merge(experts, rule, rank=6), merge(experts, rule, rank=rank)
    lost = sum(float((whole.lora.delta(n) - cut.lora.delta(n)).square().sum()) for n in SHAPES)
    all_ = sum(float(whole.lora.delta(n).square().sum()) for n in SHAPES)
    assert cut.lora.rank == rank
    assert cut.error == pytest.approx((lost / all_) ** 0.5, abs=1e-3)


def test_what_is_no_product_gets_the_rank_of_the_experts_together() -> None:
    experts = [made_up(k) for k in range(2)]
    assert merge(experts, "ties").lora.rank == 4
    assert merge(experts, "co-merge", granularity="entry").lora.rank == 4


@pytest.mark.parametrize("other", [made_up(1, rank=3), made_up(1, alpha=4.0)])
def test_experts_of_different_make_are_refused(other: Lora) -> None:
    with pytest.raises(ValueError, match="same layers, rank and alpha"):
        merge([made_up(0), other], "sum")


def test_co_merge_without_signals_is_refused() -> None:
    with pytest.raises(ValueError, match="signals of every layer"):
        merge([made_up(0), made_up(1)], "co-merge")
