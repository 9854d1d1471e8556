"""Options of concept ablation. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.training.erasing_options import ErasingOptions


class CaOptions(ErasingOptions):
    """Options of concept ablation, beside those that it shares with ESD and SDD.

    Its latents are a pool of the anchors' images, drawn by the base and noised to a random t. The
    pool is filled: where there are fewer anchors, each is drawn several times.

    Attributes:
        variant: what the student is to predict for the concept, at a noised image of the anchor:
            ``model``, what the teacher predicts for the anchor; ``noise``, the noise itself (or
            the velocity).
        teacher: of the first variant: the ``frozen`` model, or the ``student`` at that moment.
        trains: ``x-strict`` keys and values of cross-attention, ``x`` all of it, ``all`` the UNet.
        regularisation: weight of the diffusion loss on anchors' images with the anchors as
            prompts. 0 leaves it out; the authors take 1 (diffusers code) or 0.2 (CompVis code).
        weight_decay: of AdamW.
        clip: largest norm of the gradients; not clipped if not given. The authors' diffusers
            code clips at 1.
    """

    variant: Literal["model", "noise"] = "model"
    teacher: Literal["frozen", "student"] = "frozen"
    trains: Literal["x-strict", "x", "all"] = "x-strict"
    start_guidance: Annotated[float, Field(ge=0)] = 6.0
    steps: Annotated[int, Field(ge=1)] = 100
    batch: Annotated[int, Field(ge=1)] = 8
    learning_rate: Annotated[float, Field(gt=0)] = 1.6e-5
    regularisation: Annotated[float, Field(ge=0)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip: Annotated[float, Field(gt=0)] | None = None
