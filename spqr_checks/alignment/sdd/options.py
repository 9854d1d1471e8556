"""Options of SDD. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.training.erasing_options import ErasingOptions


class SddOptions(ErasingOptions):
    """Options of SDD, beside those that it shares with ESD and concept ablation.

    Attributes:
        concept: the prompts of the loss. ``joined``: all concepts, joined by commas, while the
            latents are drawn for one concept after the other; ``harmful``: harmful prompts chosen
            at random, for both.
        latents: drawn part of the way by the ``teacher``, or a ``pool`` drawn once by the base
            and noised to a random t. A pool of concepts is filled: each is drawn several times.
        weight_decay: of AdamW.
        clip: largest norm of the gradients.
        ema: what the teacher keeps of itself at each step.
    """

    concept: Literal["joined", "harmful"] = "joined"
    latents: Literal["teacher", "pool"] = "teacher"
    steps: Annotated[int, Field(ge=1)] = 1500
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
