"""Erased Stable Diffusion: the model learns to steer away from the concepts by its own knowledge.

Gandikota et al., "Erasing Concepts from Diffusion Models" (ICCV 2023). The defaults are those of
the authors' original code. The preservation loss, pools of latents, low-rank training and the
learning-rate schedule are additions of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method, Options
from spqr_checks.alignment.request import AlignmentRequest, Report

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Trains = Literal["x", "x-strict", "u", "all"]
Share = Annotated[float, Field(ge=0, le=1)]


class EsdOptions(Options):
    """Options of ESD.

    Attributes:
        trains: ``x`` cross-attention, ``x-strict`` only its keys and values, ``u`` everything but
            cross-attention, ``all`` the whole UNet. With an adapter, ``u`` means self-attention
            and feed-forward layers, and ``all`` these and cross-attention.
        target: ``original``: e0("") − η (e0(c) − e0("")); ``current``: e0(anchor) − η (e0(c) −
            e0("")), with e0 the frozen model's prediction. ``current`` with η = 0 is concept
            ablation.
        eta: η, the strength of the step away from the concept.
        latents: what the loss is taken at: latents drawn part of the way by the ``student`` or
            the frozen ``base``, or a ``pool`` drawn once by the base and noised to a random t.
        start_guidance: guidance scale of these drawings.
        sampling_steps: steps of these drawings; those of the run's sampler if not given.
        pool: most latents of one pool (harmful prompts, anchors, prompts to keep).
        anchor_share: share of a batch whose latents show the anchor, for ``latents=pool``.
        steps, batch, learning_rate: of Adam; ``warmup`` steps and then ``schedule``.
        rank: of a LoRA adapter; 0 trains the weights themselves.
        alpha: of the adapter; its rank if not given.
        keep_weight: weight of the preservation loss: the student predicts what the frozen model
            predicts for prompts to keep. 0 leaves it out.
        keep_batch: prompts to keep per step; ``batch`` if not given.
        lookalike_share: share of them drawn from the look-alikes, where these are known.
        keep_unconditional: share of them replaced by the empty prompt.
    """

    trains: Trains = "x"
    target: Literal["original", "current"] = "original"
    eta: Annotated[float, Field(ge=0)] = 1.0
    latents: Literal["student", "base", "pool"] = "student"
    start_guidance: Annotated[float, Field(ge=0)] = 3.0
    sampling_steps: Annotated[int, Field(ge=1)] | None = None
    pool: Annotated[int, Field(ge=1)] = 256
    anchor_share: Share = 0.0
    steps: Annotated[int, Field(ge=1)] = 1000
    batch: Annotated[int, Field(ge=1)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    warmup: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "cosine"] = "constant"
    rank: Annotated[int, Field(ge=0)] = 0
    alpha: Annotated[float, Field(gt=0)] | None = None
    keep_weight: Annotated[float, Field(ge=0)] = 0.0
    keep_batch: Annotated[int, Field(ge=1)] | None = None
    lookalike_share: Share = 0.5
    keep_unconditional: Share = 0.1


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: EsdOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.parts.erasure import erase

    erase(pipe, request, options, out, report)


METHOD = Method("esd", EsdOptions, _align)
