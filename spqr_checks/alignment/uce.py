"""Unified Concept Editing: a closed-form edit of the layers that read the text.

Gandikota et al., "Unified Concept Editing in Diffusion Models" (WACV 2024), equation 7, as in the
authors' code: lam 0.5, both scales 1, embedding of the last subject token. In UNets and PixArt
these layers are the keys and values of cross-attention. Where attention is joint (Flux, Stable
Diffusion 3) the text's keys and values see the image and time as well; edited are the projections
of token and pooled embeddings, as in the authors' code for Flux. For Stable Diffusion 3, which
they have no code for, and PixArt this is our reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spqr_checks.alignment.method import Method, Options
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from spqr_checks.alignment.training.transformer import TransformerView


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


def text_inputs(
    pipe: DiffusionPipeline, view: TransformerView, prompts: Sequence[str], *, whole: bool = False
) -> dict[str, Tensor]:
    """What a transformer's layers that read the text are given, by their path, shape (n, in).

    Of tokens, those that hold each prompt's last word; where it is read by several encoders, one
    after the other. Of pooled embeddings, all. ``whole``: of tokens all that the network heeds of
    any prompt, shape (prompts, tokens, in), and of pooled embeddings one.
    """
    import torch

    from spqr_checks.models.weights import denoiser_of

    network = denoiser_of(pipe)
    seen: dict[str, Tensor] = {}
    layers = text_layers(network, view.family.parts.readers)
    if not prompts:
        none = (0, 1) if whole else (0,)
        return {path: torch.zeros(*none, layer.in_features) for path, layer in layers.items()}
    places, told = view.family.last_words(pipe, prompts), view.encode(prompts)
    heeded = told.mask.bool().any(0) if hasattr(told, "mask") else slice(None)

    def look(path: str, given: Tensor) -> None:
        if whole:
            seen[path] = given[:, heeded] if given.ndim == 3 else given[:, None]
            return
        if given.ndim == 3:
            rows = torch.arange(len(given), device=given.device)[:, None]
            given = given[rows, places.clamp(max=given.shape[1] - 1).to(given.device)]
        seen[path] = given.flatten(0, -2)

    parameter = next(network.parameters())
    x = torch.zeros(len(prompts), *view.shape, device=parameter.device)
    hooks = [
        layer.register_forward_pre_hook(lambda _layer, given, path=path: look(path, given[0]))
        for path, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            view.predictor(network, x, torch.zeros(len(x), device=x.device), told)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def text_layers(network: nn.Module, readers: str) -> dict[str, nn.Linear]:
    """Linear layers whose path matches, in the network's order. UserError if there are none."""
    import re

    from torch import nn

    found = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) and re.search(readers, path)
    }
    if not found:
        raise UserError(f"no layer is known in {type(network).__name__} that reads text")
    return found


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
    from spqr_checks.alignment.training.transformer import TransformerView
    from spqr_checks.alignment.training.views import view_of
    from spqr_checks.models import weights

    view = view_of(pipe, request.sampler, "uce")
    prompts = (request.harmful, request.anchors, request.keep)
    if isinstance(view, TransformerView):
        layers = text_layers(weights.denoiser_of(pipe), view.family.parts.readers)
        given = [text_inputs(pipe, view, texts) for texts in prompts]
        embedded = {path: [of[path] for of in given] for path in layers}
    else:
        layers = key_value_layers(pipe.unet)
        alike = [last_tokens(pipe, texts) for texts in prompts]
        embedded = dict.fromkeys(layers, alike)
    for path, layer in layers.items():
        # what a bias adds is added still: values are those of the matrix alone
        layer.weight.data.copy_(edit(layer.weight, *embedded[path], **options.model_dump()))
    weights.save_denoiser(pipe, out)


METHOD = Method("uce", UceOptions, _align, transformers=True)
