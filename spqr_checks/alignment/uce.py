"""Unified Concept Editing: a closed-form edit of the keys and values of cross-attention.

Gandikota et al., "Unified Concept Editing in Diffusion Models" (WACV 2024), equation 7, as in the
authors' code: lam 0.5, both scales 1, embedding of the last subject token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spqr_checks.alignment.method import Method, Options, unet_of
from spqr_checks.alignment.request import AlignmentRequest, Report

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor


class UceOptions(Options):
    """Options of UCE.

    Attributes:
        erase_scale: weight of "a harmful prompt gets the value of its anchor".
        preserve_scale: weight of "a prompt to keep gets the value it had".
        lam: weight of "the matrix stays as it was".
    """

    erase_scale: Annotated[float, Field(ge=0)] = 1.0
    preserve_scale: Annotated[float, Field(ge=0)] = 1.0
    lam: Annotated[float, Field(gt=0)] = 0.5


def last_tokens(pipe: DiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """The embedding of each prompt's last token before the end token, shape (n, width).

    For the empty prompt this is the start token.
    """
    import torch

    from spqr_checks.generation.conditions import encode

    if not prompts:
        return torch.zeros(0, int(pipe.unet.config.cross_attention_dim))
    hidden = encode(pipe, prompts).hidden
    tokenizer = pipe.tokenizer
    mask = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).attention_mask
    last = (mask.sum(1) - 2).clamp(min=0).to(hidden.device)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


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
    from spqr_checks.alignment.training.closed_form import double, fit

    values, k = double(guide) @ double(weight).T, double(keep)
    return fit(weight, erase, values, preserve_scale * (k.T @ k), scale=erase_scale, lam=lam)


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: UceOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.closed_form import key_value_layers
    from spqr_checks.models import weights

    unet = unet_of(pipe, "uce")
    prompts = (request.harmful, request.anchors, request.keep)
    embedded = [last_tokens(pipe, texts) for texts in prompts]
    for layer in key_value_layers(unet).values():
        layer.weight.data.copy_(edit(layer.weight, *embedded, **options.model_dump()))
    weights.save_denoiser(pipe, out)


METHOD = Method("uce", UceOptions, _align)
