"""One LoRA out of several that were trained on the same layers of one model.

Co-Merge is from AlignGuard (Liu et al., arXiv 2412.10493), whose text says that for each weight the
expert with the highest activation over all inputs is kept. Neither code nor formula was published;
what is here is our reconstruction. TIES is Yadav et al., "TIES-Merging: Resolving Interference When
Merging Models" (NeurIPS 2023); the sum is task arithmetic (Ilharco et al., ICLR 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spqr_checks.alignment.training.activations import Signals, Statistic
from spqr_checks.alignment.training.low_rank import Lora, nearest, truncated

Rule = Literal["co-merge", "average", "sum", "ties"]
Granularity = Literal["row", "matrix", "entry", "factor_rows"]


@dataclass(frozen=True)
class Merged:
    """A merged LoRA, and how far it is from the exact result: |ΔW − ΔW'| / |ΔW| (Frobenius)."""

    lora: Lora
    error: float = 0.0


def merge(
    experts: Sequence[Lora],
    rule: Rule,
    *,
    signals: Mapping[str, Signals] | None = None,
    statistic: Statistic = "vote",
    granularity: Granularity = "row",
    density: float = 0.2,
    rank: int | None = None,
) -> Merged:
    """Merges K experts of rank r.

    ``co-merge`` gives each output unit of a layer (``row``), each layer (``matrix``), each entry
    of ΔW (``entry``), or each row of A and of B (``factor_rows``) to one expert. By row the result
    is the exact product of rank K·r: B = [m_1 B_1 | … | m_K B_K], A = [A_1; …; A_K]; so are
    ``average`` and ``sum`` with the masks 1/K and 1. By matrix and by rows of the factors it has
    rank r; the latter puts rows of A beside columns of B that did not belong together.

    ``entry`` and ``ties`` are no low-rank products. They stay adapters, so that they can still be
    taken off, as the LoRA of ``rank`` that is nearest; K·r if no rank is given.

    Args:
        signals: by layer, from ``activations``; for ``co-merge`` but by entry, where the signal
            |ΔW_k[j, i]| · mean |x_i| has an argument that is the same for all experts, so that the
            largest entry wins whatever the input is.
        density: share of the entries that TIES keeps of each expert, layer by layer.
        rank: cut the result to this rank; ``None`` leaves an exact one as it is.

    Raises:
        ValueError: experts of different layers, ranks or alphas, or signals that are missing.
    """
    _refuse_mixed(experts)
    first = experts[0]
    layers = list(first.factors)
    if rule == "ties" or (rule == "co-merge" and granularity == "entry"):

        def delta(layer: str) -> Tensor:
            stacked = torch.stack([expert.delta(layer) for expert in experts])
            return ties(stacked, density) if rule == "ties" else largest(stacked)

        return Merged(*nearest(layers, delta, rank or len(experts) * first.rank))
    if rule == "co-merge":
        if signals is None or signals.keys() != first.factors.keys():
            raise ValueError("co-merge needs the signals of every layer")
        if granularity == "row":
            lora = stacked_rows(experts, {n: masks(s, statistic) for n, s in signals.items()})
        else:
            lora = _picked(experts, signals, statistic, granularity)
    else:
        weight = 1 / len(experts) if rule == "average" else 1.0
        lora = stacked_rows(
            experts, {layer: torch.full((len(experts), 1), weight) for layer in layers}
        )
    if rank is None:
        return Merged(lora)
    return Merged(*truncated(lora, rank))


def masks(signals: Signals, statistic: Statistic) -> Tensor:
    """1 where an expert has won an output unit, else 0; shape (experts, out)."""
    return F.one_hot(signals.rows.winners(statistic), len(signals.rows.votes)).T.float()


def stacked_rows(experts: Sequence[Lora], weights: Mapping[str, Tensor]) -> Lora:
    """Σ_k diag(w_k) ΔW_k as one LoRA of rank K·r and the experts' scale, without any rounding.

    Args:
        weights: by layer, w of shape (experts, out) or (experts, 1).
    """
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for layer, weight in weights.items():
        own = [expert.factors[layer] for expert in experts]
        a = torch.cat([a for a, _ in own])
        b = torch.cat([w[:, None] * b for w, (_, b) in zip(weight, own, strict=True)], dim=1)
        factors[layer] = (a, b)
    return Lora(factors, sum(expert.alpha for expert in experts))


def _picked(
    experts: Sequence[Lora],
    signals: Mapping[str, Signals],
    statistic: Statistic,
    granularity: Granularity,
) -> Lora:
    """Whole factors, or rows of them, of the winners; the experts' rank and alpha."""
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for layer, measured in signals.items():
        all_a = torch.stack([expert.factors[layer][0] for expert in experts])
        all_b = torch.stack([expert.factors[layer][1] for expert in experts])
        if granularity == "matrix":
            winner = int(measured.matrix.winners(statistic))
            factors[layer] = (all_a[winner], all_b[winner])
        else:
            hidden, rows = measured.hidden.winners(statistic), measured.rows.winners(statistic)
            a = all_a[hidden, torch.arange(len(hidden))]
            factors[layer] = (a, all_b[rows, torch.arange(len(rows))])
    return Lora(factors, experts[0].alpha)


def largest(deltas: Tensor) -> Tensor:
    """Entry by entry the value that is farthest from 0, of matrices of shape (experts, out, in)."""
    winner = deltas.abs().argmax(dim=0, keepdim=True)
    return deltas.gather(0, winner)[0]


def ties(deltas: Tensor, density: float) -> Tensor:
    """TIES-Merging of updates of shape (experts, out, in): trim, elect a sign, disjoint mean.

    Of each update the ``density`` largest entries stay. The sign of an entry is that of the sum
    over what stayed, and the result is the mean of the experts that have this sign. The authors
    trim all layers of a model together; here it is layer by layer, for the memory's sake.
    """
    kept = max(1, round(density * deltas[0].numel()))
    flat = deltas.flatten(1)
    top = flat.abs().topk(kept, dim=1).indices
    trimmed = torch.zeros_like(flat).scatter(1, top, flat.gather(1, top)).view_as(deltas)
    agree = (trimmed.sign() == trimmed.sum(dim=0).sign()) & (trimmed != 0)
    return (trimmed * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)


def _refuse_mixed(experts: Sequence[Lora]) -> None:
    kinds = {
        (
            expert.rank,
            expert.alpha,
            tuple((layer, *a.shape, *b.shape) for layer, (a, b) in sorted(expert.factors.items())),
        )
        for expert in experts
    }
    if len(kinds) != 1:
        raise ValueError("experts that are merged must have the same layers, rank and alpha")
