"""RegMean: experts merged so that each acts on its own inputs as it did alone.

Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models" (ICLR 2023): of
all matrices the merged one is nearest to every expert's on that expert's inputs. For LoRAs of one
model it is exact and stays low-rank. That prompts to keep are an expert that changes nothing, with
a weight of its own, and the scale, are additions of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.activations import calibration_prompts, watch_inputs
from spqr_checks.alignment.training.low_rank import Lora
from spqr_checks.alignment.training.preservation import prompts_to_keep
from spqr_checks.alignment.training.views import View

Grams = Mapping[str, Tensor]
"""By layer, the mean of x xᵀ over its inputs x, shape (in, in), double precision."""


def input_grams(
    view: View,
    request: AlignmentRequest,
    prompts: Sequence[str],
    layers: Sequence[str],
    timesteps: int,
) -> Grams:
    """The mean of x xᵀ of the base's layers for some prompts."""
    sums: dict[str, Tensor] = {}
    seen: dict[str, int] = {}

    def see(layer: str, x: Tensor) -> None:
        rows = x.detach().flatten(0, -2).double()
        sums[layer] = sums.get(layer, torch.zeros(1, dtype=torch.float64)) + (rows.T @ rows).cpu()
        seen[layer] = seen.get(layer, 0) + len(rows)

    watch_inputs(view, request, prompts, layers, see, timesteps)
    return {layer: total / seen[layer] for layer, total in sums.items()}


def measured(
    view: View,
    request: AlignmentRequest,
    layers: Sequence[str],
    *,
    prompts_per_category: int,
    timesteps: int,
) -> tuple[list[Grams], Grams | None]:
    """Inputs for each category's harmful prompts, and for as many prompts to keep as for all."""
    found: list[Grams] = []
    for category in dict.fromkeys(request.categories):
        of = [i for i, its in enumerate(request.categories) if its == category]
        harmful, anchors = ([texts[i] for i in of] for texts in (request.harmful, request.anchors))
        own = replace(request, harmful=harmful, anchors=anchors, categories=[])
        prompts = calibration_prompts(own, prompts_per_category)
        found.append(input_grams(view, request, prompts, layers, timesteps))
    kept, _ = prompts_to_keep(request)
    if not kept:
        return found, None
    generator = torch.Generator().manual_seed(request.seed)
    order = torch.randperm(len(kept), generator=generator).tolist()
    some = [kept[i] for i in order[: prompts_per_category * len(found)]]
    return found, input_grams(view, request, some, layers, timesteps)


def regmean(
    experts: Sequence[Lora],
    grams: Sequence[Grams],
    kept: Grams | None,
    *,
    scale: float,
    keep_weight: float,
    ridge: float,
) -> Lora:
    """The LoRA with ``ΔW = s Σ_k ΔW_k G_k (Σ_j G_j + w G_keep + ridge I)⁻¹`` in every layer.

    With s = 1 it minimises ``Σ_k tr((ΔW − ΔW_k) G_k (ΔW − ΔW_k)ᵀ) + w tr(ΔW G_keep ΔWᵀ) +
    ridge |ΔW|²``: A'_k = s A_k G_k (…)⁻¹, one below the other, beside the experts' B.

    Args:
        grams: of each expert's inputs.
        kept: of inputs that are to be left alone, weighed by ``keep_weight``.
    """
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for layer in experts[0].factors:
        own = [gram[layer] for gram in grams]
        total = torch.stack(own).sum(0)
        if kept is not None:
            total = total + keep_weight * kept[layer]
        total = total + ridge * torch.eye(len(total), dtype=total.dtype)
        parts = [
            scale * torch.linalg.solve(total, gram @ expert.factors[layer][0].double().T).T
            for expert, gram in zip(experts, own, strict=True)
        ]
        b = torch.cat([expert.factors[layer][1] for expert in experts], dim=1)
        factors[layer] = (torch.cat(parts).float(), b)
    return Lora(factors, sum(expert.alpha for expert in experts))
