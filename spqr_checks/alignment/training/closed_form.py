"""Linear layers edited without training: the least squares that UCE, RECE and MACE share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spqr_checks.errors import UserError

_EDITED = ("attn2.to_k", "attn2.to_v")
_SINGULAR = 1e-13


def key_value_layers(unet: nn.Module) -> dict[str, nn.Linear]:
    """Every key and value projection of cross-attention by its path, in the network's order."""
    return {
        name: module
        for name, module in unet.named_modules()
        if name.endswith(_EDITED) and isinstance(module, nn.Linear)
    }


def double(tensor: Tensor) -> Tensor:
    """The values on the CPU in double precision."""
    return tensor.detach().to("cpu", torch.float64)


def fit(
    weight: Tensor, inputs: Tensor, values: Tensor, kept: Tensor, *, scale: float, lam: float
) -> Tensor:
    """The matrix W that minimises, with W0 = ``weight``,

    ``e Σ |W c_i − v_i|² + Σ |(W − W0) k_j|² + λ |W − W0|²``.

    Setting the gradient to zero gives, with ``K = Σ k_j k_jᵀ``,
    ``W = (λ W0 + e Σ v_i c_iᵀ + W0 K)(λ I + e Σ c_i c_iᵀ + K)⁻¹``.

    Args:
        weight: W0, shape (out, in).
        inputs: c, shape (n, in).
        values: v, what the inputs are to be mapped to, shape (n, out).
        kept: K with its weight, shape (in, in), double precision, on the CPU.
        scale: e.
        lam: λ.

    Returns:
        W, float64, on the CPU.

    Raises:
        UserError: the data and λ leave some directions of the matrix open.
    """
    before, c, v = double(weight), double(inputs), double(values)
    preserved = kept + lam * torch.eye(before.shape[1], dtype=torch.float64)
    right = preserved + scale * (c.T @ c)
    spectrum = torch.linalg.eigvalsh(right)
    if not bool(spectrum[0] > _SINGULAR * spectrum[-1]):
        raise UserError(
            "the closed form has no single solution: λ is too small for so few prompts; raise the "
            "option 'lam', or give more prompts to keep"
        )
    # W right = left, and right is symmetric
    solved: Tensor = torch.linalg.solve(right, (before @ preserved + scale * (v.T @ c)).T).T
    return solved
