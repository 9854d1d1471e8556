"""RECE: edits in closed form, and then edits again what would bring the concept back.

Gong et al., "Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models" (ECCV 2024,
arXiv 2407.12383; code: CharlesGong12/RECE). It starts from a UCE edit. Then, for some epochs, the
token embeddings C' are found from which the edited keys and values are nearest to those that the
original ones make of the concept C,

    C' = C (A⁻¹ B)ᵀ,   A = r I + Σ_l W_lᵀ W_l,   B = Σ_l W_lᵀ W⁰_l,

l over all keys and values of cross-attention, and mapped by another edit to what the empty prompt
(``" "``) gives. All positions of a prompt count. Defaults are those of the authors' code for
nudity.

Ours: concepts may be the harmful prompts, be mapped to their anchors, and be held beside prompts to
keep. The authors draw images after every epoch and keep the one that a detector likes best; here
none is drawn, and the last epoch counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spqr_checks.alignment.method import Method, Options, unet_of
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.options import Count, Positive, Weight
from spqr_checks.alignment.uce import edit
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import Tensor

_EMPTY = " "


class RegularisedUce(Options):
    """Scales of the UCE edit that RECE starts from."""

    erase_scale: Weight = 1.0
    preserve_scale: Weight = 1.0
    lam: Positive = 0.5


class ReceOptions(Options):
    """Options of RECE.

    Attributes:
        erases: the request's ``concepts`` by name, or its ``harmful`` prompts.
        guide: what is drawn instead: the ``empty`` prompt, or each prompt's ``anchors``, which
            only harmful prompts have.
        retain: what keeps its values in RECE's own edits: the ``empty`` prompt, or the prompts to
            ``keep``, which are then kept by the first edit too.
        uce: scales of the first edit.
        epochs: edits after that; the authors take 3 for nudity, 2 for unsafe content in general
            and else 1.
        reg: r, how small the embeddings C' are held; the authors take 1e-3 for styles and for
            objects that are hard to erase.
        erase_scale, preserve_scale, lam: as in UCE, for RECE's own edits.
    """

    erases: Literal["concepts", "harmful"] = "concepts"
    guide: Literal["empty", "anchors"] = "empty"
    retain: Literal["empty", "keep"] = "empty"
    uce: RegularisedUce = RegularisedUce()
    epochs: Count = 3
    reg: Positive = 0.1
    erase_scale: Weight = 1.0
    preserve_scale: Weight = 0.1
    lam: Positive = 0.1


def returning(
    concept: Tensor, edited: Sequence[Tensor], original: Sequence[Tensor], reg: float
) -> Tensor:
    """C', the embeddings that bring a concept back, in the shape of ``concept``.

    ``(…, width)``; C' minimises ``Σ_l |W_l c' − W⁰_l c|² + r |c'|²`` for each embedding.
    """
    import torch

    from spqr_checks.alignment.training.closed_form import double

    now, before = [double(w) for w in edited], [double(w) for w in original]
    a = reg * torch.eye(now[0].shape[1], dtype=torch.float64)
    a = a + torch.stack([w.T @ w for w in now]).sum(0)
    b = torch.stack([w.T @ w0 for w, w0 in zip(now, before, strict=True)]).sum(0)
    back: Tensor = double(concept) @ torch.linalg.solve(a, b).T
    return back


def tails(old: Tensor, new: Tensor, old_last: Tensor, new_last: Tensor) -> tuple[Tensor, Tensor]:
    """Positions from the last subject token to the end, of both prompts and equally many.

    Args:
        old, new: token embeddings, shape (prompts, tokens, width).
        old_last, new_last: position of each prompt's last token before the end token.

    Returns:
        Embeddings of the old and the new prompts, position by position, shape (n, width) each.
    """
    import torch

    length, pairs = old.shape[1], []
    for one, other, i, j in zip(old, new, old_last.tolist(), new_last.tolist(), strict=True):
        n = length - max(i, j)
        pairs.append((one[i : i + n], other[j : j + n]))
    return torch.cat([one for one, _ in pairs]), torch.cat([other for _, other in pairs])


def _last(pipe: DiffusionPipeline, prompts: Sequence[str]) -> torch.Tensor:
    tokenizer = pipe.tokenizer
    given = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    mask = tokenizer(list(prompts), max_length=tokenizer.model_max_length, **given).attention_mask
    last: Tensor = (mask.sum(1) - 2).clamp(min=0)
    return last


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: ReceOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.closed_form import key_value_layers
    from spqr_checks.generation.conditions import encode
    from spqr_checks.models import weights

    unet = unet_of(pipe, "rece")
    names = request.concepts if options.erases == "concepts" else request.harmful
    if not names:
        raise UserError(
            "method 'rece' erases concepts by name, and the training set names none; say "
            "erases = 'harmful' to take its harmful prompts"
        )
    if options.guide == "anchors" and options.erases != "harmful":
        raise UserError("method 'rece': guide = 'anchors' needs erases = 'harmful'")
    guides = request.anchors if options.guide == "anchors" else [_EMPTY] * len(names)
    concept, guide = encode(pipe, names).hidden, encode(pipe, guides).hidden
    keeps = options.retain == "keep" and bool(request.keep)
    first = encode(pipe, request.keep).hidden if keeps else concept[:0]
    kept = first if keeps else encode(pipe, [_EMPTY]).hidden
    layers = list(key_value_layers(unet).values())
    original = [layer.weight.detach().clone() for layer in layers]
    erased, given = tails(concept, guide, _last(pipe, names), _last(pipe, guides))
    for layer in layers:
        layer.weight.data.copy_(
            edit(layer.weight, erased, given, first.flatten(0, 1), **options.uce.model_dump())
        )
    scales = options.model_dump(include={"erase_scale", "preserve_scale", "lam"})
    for _ in range(options.epochs):
        back = returning(concept, [layer.weight for layer in layers], original, options.reg)
        for layer in layers:
            edited = edit(
                layer.weight, back.flatten(0, 1), guide.flatten(0, 1), kept.flatten(0, 1), **scales
            )
            layer.weight.data.copy_(edited)
    weights.save_denoiser(pipe, out)


METHOD = Method("rece", ReceOptions, _align)
