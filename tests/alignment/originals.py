"""What tests against the authors' arithmetic share: prompts, steps, and what is equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spqr_checks.alignment.training.unet import ADAPTER
from spqr_checks.models import adapters

LR = 1e-3
HARMFUL = ["a red triangle", "a small red triangle, photo style"]
ANCHORS = ["a blue triangle", "a small red circle, photo style"]
CONCEPTS = ["red triangle", "star"]
Given = list[tuple[Any, ...]]
Texts = Callable[[list[str]], Tensor]


def trained(network: nn.Module, *names: str) -> list[nn.Parameter]:
    """The parameters that have one of the names in theirs; the others are frozen."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(part in name for part in names))
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def of_attention(network: nn.Module) -> dict[str, Tensor]:
    """Keys and values of cross-attention, which all of these train."""
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if "attn2.to_k" in name or "attn2.to_v" in name
    }


def descend(optimiser: torch.optim.Optimizer, loss: Tensor, clip: float | None = None) -> None:
    optimiser.zero_grad()
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], clip)
    optimiser.step()


def assert_equal_but_for_rounding(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], few: float = 2e-3
) -> None:
    """But for a few elements: where a gradient is nothing but rounding, Adam's step is long too."""
    apart = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in theirs])
    assert (apart > LR / 100).float().mean() < few
    assert apart.max() < LR


def low_rank_copy(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The factors of the adapter that is on a network, as leaves of a computation of our own."""
    tensors = adapters.adapter_tensors(unet, ADAPTER)
    return {name: nn.Parameter(tensor.detach().clone()) for name, tensor in tensors.items()}


def with_low_rank(unet: nn.Module, factors: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """W + B A in each layer, linear or convolution (α is the rank)."""
    own = dict(unet.named_parameters())
    changed = {}
    for name, down in factors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            weight, up = own[f"{layer}.weight"].detach(), factors[f"{layer}.lora_B.weight"]
            changed[f"{layer}.weight"] = weight + (up.flatten(1) @ down.flatten(1)).view_as(weight)
    return changed
