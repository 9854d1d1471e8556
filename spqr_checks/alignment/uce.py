"""Unified Concept Editing: a closed-form edit of the keys and values of cross-attention.

Gandikota et al., "Unified Concept Editing in Diffusion Models" (WACV 2024), equation 7, as in the
authors' code: lam 0.5, both scales 1, embedding of the last subject token.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method, Options
from spqr_checks.alignment.request import AlignmentRequest, Report

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class UceOptions(Options):
    """Options of UCE.

    Attributes:
        erase_scale: weight of "a harmful prompt gets the value of its anchor".
        preserve_scale: weight of "a prompt to keep gets the value it had".
        lam: weight of "the matrix stays as it was".
        tokens: which token embeddings count: that of the last token before the end token, as the
            authors choose, or all positions of the padded prompt, matched by position with the
            anchor's (our reading of their older version, which aligns at the last token).
    """

    erase_scale: Annotated[float, Field(ge=0)] = 1.0
    preserve_scale: Annotated[float, Field(ge=0)] = 1.0
    lam: Annotated[float, Field(gt=0)] = 0.5
    tokens: Literal["last", "all"] = "last"


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: UceOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.method import unet_of
    from spqr_checks.alignment.training.closed_form import edit, key_value_layers
    from spqr_checks.alignment.training.embeddings import token_embeddings
    from spqr_checks.models import weights

    unet = unet_of(pipe, "uce")
    erase = token_embeddings(pipe, request.harmful, options.tokens)
    guide = token_embeddings(pipe, request.anchors, options.tokens)
    keep = token_embeddings(pipe, request.keep, options.tokens)
    for layer in key_value_layers(unet):
        edited = edit(
            layer.weight,
            erase,
            guide,
            keep,
            erase_scale=options.erase_scale,
            preserve_scale=options.preserve_scale,
            lam=options.lam,
        )
        layer.weight.data.copy_(edited)
    weights.save_denoiser(pipe, out)


METHOD = Method("uce", UceOptions, _align)
