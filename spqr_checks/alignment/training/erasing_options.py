"""Options that the methods which distil a model into itself share. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Options

Trains = Literal["x", "x-strict", "u", "all"]
Share = Annotated[float, Field(ge=0, le=1)]


class ErasingOptions(Options):
    """What ESD, SDD and concept ablation can all be told; the defaults are ESD's.

    Attributes:
        trains: ``x`` cross-attention, ``x-strict`` only its keys and values, ``u`` everything but
            cross-attention, ``all`` the whole UNet. With an adapter, ``u`` means self-attention
            and feed-forward layers, and ``all`` these and cross-attention.
        start_guidance: guidance scale of the latents that are drawn for training.
        sampling_steps: steps of these drawings; those of the run's sampler if not given.
        pool: most latents of one pool; what is drawn into pools is said at each method, prompts
            to keep always are.
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
    start_guidance: Annotated[float, Field(ge=0)] = 3.0
    sampling_steps: Annotated[int, Field(ge=1)] | None = None
    pool: Annotated[int, Field(ge=1)] = 256
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
