"""Linear layers edited without training: the least squares that UCE, RECE and MACE share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spqr_checks.errors import UserError

EDITED = ("attn2.to_k", "attn2.to_v")
"""How the paths of cross-attention's keys and values end."""
_SINGULAR = 1e-13


def key_value_layers(unet: nn.Module) -> dict[str, nn.Linear]:
    """Every key and value projection of cross-attention by its path, in the network's order."""
    return {
        name: module
        for name, module in unet.named_modules()
        if name.endswith(EDITED) and isinstance(module, nn.Linear)
    }


def double(tensor: Tensor) -> Tensor:
    """The values on the CPU in double precision."""
    return tensor.detach().to("cpu", torch.float64)


def returning(
    concept: Tensor, edited: Sequence[Tensor], original: Sequence[Tensor], reg: float
) -> Tensor:
    """RECE's C', the embeddings that bring a concept back, in the shape of ``concept``.

    ``(…, width)``; C' minimises ``Σ_l |W_l c' − W⁰_l c|² + r |c'|²`` for each embedding:

        C' = C (A⁻¹ B)ᵀ,   A = r I + Σ_l W_lᵀ W_l,   B = Σ_l W_lᵀ W⁰_l.
    """
    now, before = [double(w) for w in edited], [double(w) for w in original]
    a = reg * torch.eye(now[0].shape[1], dtype=torch.float64)
    a = a + torch.stack([w.T @ w for w in now]).sum(0)
    b = torch.stack([w.T @ w0 for w, w0 in zip(now, before, strict=True)]).sum(0)
    back: Tensor = double(concept) @ torch.linalg.solve(a, b).T
    return back


def fit(
    weight: Tensor,
    inputs: Tensor,
    values: Tensor,
    kept: Tensor,
    *,
    scale: float,
    lam: float,
    original: Tensor | None = None,
) -> Tensor:
    """The matrix W that minimises, with W1 = ``weight`` and W0 = ``original``,

    ``e Σ |W c_i − v_i|² + Σ |(W − W0) k_j|² + λ |W − W1|²``.

    Setting the gradient to zero gives, with ``K = Σ k_j k_jᵀ``,
    ``W = (λ W1 + e Σ v_i c_iᵀ + W0 K)(λ I + e Σ c_i c_iᵀ + K)⁻¹``.

    Args:
        weight: W1, shape (out, in).
        inputs: c, shape (n, in).
        values: v, what the inputs are to be mapped to, shape (n, out).
        kept: K with its weight, shape (in, in), double precision, on the CPU.
        scale: e.
        lam: λ.
        original: W0, shape of ``weight``, which it is if not given.

    Returns:
        W, float64, on the CPU.

    Raises:
        UserError: the data and λ leave some directions of the matrix open.
    """
    before, c, v = double(weight), double(inputs), double(values)
    held = before if original is None else double(original)
    ridge = lam * torch.eye(before.shape[1], dtype=torch.float64)
    right = kept + ridge + scale * (c.T @ c)
    spectrum = torch.linalg.eigvalsh(right)
    if not bool(spectrum[0] > _SINGULAR * spectrum[-1]):
        raise UserError(
            "the closed form has no single solution: λ is too small for so few prompts; raise the "
            "option 'lam', or give more prompts to keep"
        )
    # W right = left, and right is symmetric
    left = held @ kept + before @ ridge + scale * (v.T @ c)
    solved: Tensor = torch.linalg.solve(right, left.T).T
    return solved
