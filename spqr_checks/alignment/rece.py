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
none is drawn, and the last epoch counts. Transformers are ours as well: edited are the layers that
``uce`` edits there, those with the same inputs together; the first edit is that of ``uce``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spqr_checks.alignment.method import Method, Options
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.options import Count, Positive, Weight
from spqr_checks.alignment.uce import edit, text_inputs, text_layers
from spqr_checks.errors import UserError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from spqr_checks.alignment.training.transformer import TransformerView

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


@dataclass(frozen=True)
class _Layers:
    """Layers with the same inputs, and what these are.

    Attributes:
        concept, guide, kept, first: of each prompt at all positions, shape (prompts, n, in);
            ``first`` is kept by the first edit, ``kept`` by the others.
        erased, given: rows of concepts and guides for the first edit, shape (rows, in).
    """

    layers: list[nn.Linear]
    concept: Tensor
    guide: Tensor
    kept: Tensor
    first: Tensor
    erased: Tensor
    given: Tensor


_Texts = tuple[list[str], list[str], list[str], list[str]]
"""Concepts, guides, and what is kept by RECE's own edits and by the first."""


def _of_unet(pipe: DiffusionPipeline, texts: _Texts) -> list[_Layers]:
    from spqr_checks.alignment.training.closed_form import key_value_layers
    from spqr_checks.generation.conditions import encode

    names, guides, kept, first = texts
    layers = list(key_value_layers(pipe.unet).values())
    concept, guide, held = (encode(pipe, part).hidden for part in (names, guides, kept))
    before = encode(pipe, first).hidden if first else concept[:0]
    rows = tails(concept, guide, _last(pipe, names), _last(pipe, guides))
    return [_Layers(layers, concept, guide, held, before, *rows)]


def _of_transformer(pipe: DiffusionPipeline, view: TransformerView, texts: _Texts) -> list[_Layers]:
    import torch

    from spqr_checks.models.weights import denoiser_of

    found = text_layers(denoiser_of(pipe), view.family.parts.readers)
    names, guides, *kept = texts
    # together, so that as many positions count of both
    both = text_inputs(pipe, view, [*names, *guides], whole=True)
    held, before = (text_inputs(pipe, view, part, whole=True) for part in kept)
    erased, given = (text_inputs(pipe, view, part) for part in (names, guides))
    groups: list[_Layers] = []
    for path, layer in found.items():
        concept, guide = both[path][: len(names)], both[path][len(names) :]
        same = (g for g in groups if torch.equal(g.concept, concept))
        if (group := next(same, None)) is not None:
            group.layers.append(layer)
            continue
        rest = held[path], before[path], erased[path], given[path]
        groups.append(_Layers([layer], concept, guide, *rest))
    return groups


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: ReceOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.transformer import TransformerView
    from spqr_checks.alignment.training.views import view_of
    from spqr_checks.models import weights

    names = request.concepts if options.erases == "concepts" else request.harmful
    if not names:
        raise UserError(
            "method 'rece' erases concepts by name, and the training set names none; say "
            "erases = 'harmful' to take its harmful prompts"
        )
    if options.guide == "anchors" and options.erases != "harmful":
        raise UserError("method 'rece': guide = 'anchors' needs erases = 'harmful'")
    guides = request.anchors if options.guide == "anchors" else [_EMPTY] * len(names)
    first = request.keep if options.retain == "keep" else []
    texts = (names, guides, first or [_EMPTY], first)
    view = view_of(pipe, request.sampler, "rece")
    if isinstance(view, TransformerView):
        groups = _of_transformer(pipe, view, texts)
    else:
        groups = _of_unet(pipe, texts)
    for group in groups:
        _edit(group, options)
    weights.save_denoiser(pipe, out)


def _edit(group: _Layers, options: ReceOptions) -> None:
    """UCE's edit, and RECE's own of every epoch."""
    from spqr_checks.alignment.training.closed_form import returning

    original = [layer.weight.detach().clone() for layer in group.layers]
    first = group.first.flatten(0, 1)
    for layer in group.layers:
        edited = edit(layer.weight, group.erased, group.given, first, **options.uce.model_dump())
        layer.weight.data.copy_(edited)
    scales = options.model_dump(include={"erase_scale", "preserve_scale", "lam"})
    guide, kept = group.guide.flatten(0, 1), group.kept.flatten(0, 1)
    for _ in range(options.epochs):
        now = [layer.weight for layer in group.layers]
        back = returning(group.concept, now, original, options.reg)
        for layer in group.layers:
            edited = edit(layer.weight, back.flatten(0, 1), guide, kept, **scales)
            layer.weight.data.copy_(edited)


METHOD = Method("rece", ReceOptions, _align, transformers=True)
