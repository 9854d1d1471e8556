"""The closed-form edit of a linear layer that UCE and its descendants share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_EDITED = ("attn2.to_k", "attn2.to_v")


def key_value_layers(unet: nn.Module) -> list[nn.Linear]:
    """Every key and value projection of cross-attention, in the order of the network."""
    return [
        module
        for name, module in unet.named_modules()
        if name.endswith(_EDITED) and isinstance(module, nn.Linear)
    ]


def edit(
    weight: Tensor,
    erase: Tensor,
    guide: Tensor,
    keep: Tensor,
    *,
    erase_scale: float,
    preserve_scale: float,
    lam: float,
) -> Tensor:
    """The matrix W that minimises, with W0 = ``weight`` and v*_i = W0 g_i,

    ``e Σ |W c_i − v*_i|² + p Σ |(W − W0) k_j|² + λ |W − W0|²``.

    Setting the gradient to zero gives (UCE, equation 7)
    ``W = (λ W0 + e Σ v*_i c_iᵀ + p Σ W0 k_j k_jᵀ)(λ I + e Σ c_i c_iᵀ + p Σ k_j k_jᵀ)⁻¹``.

    Args:
        weight: W0, shape (out, in).
        erase: c, embeddings to redirect, shape (n, in).
        guide: g, embeddings whose values they get, shape (n, in).
        keep: k, embeddings whose values stay, shape (m, in).

    Returns:
        W, float64, on the CPU.
    """
    before, c, g, k = (x.detach().to("cpu", torch.float64) for x in (weight, erase, guide, keep))
    identity = torch.eye(before.shape[1], dtype=torch.float64)
    preserved = preserve_scale * (k.T @ k) + lam * identity
    left = before @ (preserved + erase_scale * (g.T @ c))
    right = preserved + erase_scale * (c.T @ c)
    # W right = left, and right is symmetric
    edited: Tensor = torch.linalg.solve(right, left.T).T
    return edited
