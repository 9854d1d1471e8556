"""Options of ESD. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.training.erasing_options import ErasingOptions, Share


class EsdOptions(ErasingOptions):
    """Options of ESD, beside those that it shares with SDD and concept ablation.

    Attributes:
        target: ``original``: e0("") − η (e0(c) − e0("")); ``current``: e0(anchor) − η (e0(c) −
            e0("")), with e0 the frozen model's prediction. ``current`` with η = 0 is concept
            ablation.
        eta: η, the strength of the step away from the concept.
        latents: what the loss is taken at: latents drawn part of the way by the ``student`` or
            the frozen ``base``, or a ``pool`` drawn once by the base and noised to a random t.
        anchor_share: share of a batch whose latents show the anchor, for ``latents=pool``.
    """

    target: Literal["original", "current"] = "original"
    eta: Annotated[float, Field(ge=0)] = 1.0
    latents: Literal["student", "base", "pool"] = "student"
    anchor_share: Share = 0.0
