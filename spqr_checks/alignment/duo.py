"""DUO: prefers an image to its unsafe twin, and holds the model to its prior at pure noise.

Park et al., "Direct Unlearning Optimization for Robust and Safe Text-to-Image Models" (NeurIPS
2024, arXiv 2407.21035), with the rules of the authors' code: learning rate 3e-4 · 100 / β, λ = 1e6
· β / 100, LoRA of self-attention only. Its safe images are the unsafe ones edited by SDEdit.

Deviations: both images of a pair get the same timestep, as in the paper (the code draws one for
each); no detector filters the images, whose prompts are the request's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.options import (
    Count,
    Positive,
    PreferenceOptions,
    Share,
    Weight,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class DuoOptions(PreferenceOptions):
    """Options of DUO beside those of all preference methods; defaults of its nudity experiment.

    ``learning_rate`` is 3e-4 · 100 / β if not given.

    Attributes:
        beta: β, without the factor ½ of Diffusion-DPO.
        prior_weight: λ of |ε_θ(x_T, T − 1, "") − ε_ref(…)|²; 1e6 · β / 100 if not given.
        share: of the noise schedule, from its clean end, that timesteps are drawn from.
        strength: share of the sampler's steps that SDEdit draws again (0.75 for nudity, 0.8 for
            violence in the authors' code).
        captions: what images are predicted under: ``none``, or their ``own`` prompts, which the
            authors' code knows too.
    """

    beta: Positive = 500.0
    rank: Count = 32
    steps: Count = 1000
    caption_dropout: Share = 0.0
    prior_weight: Weight | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.75
    strength: Annotated[float, Field(gt=0, le=1)] = 0.75
    captions: Literal["own", "none"] = "none"


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: DuoOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.training.pair_images import choose_each, edited_pairs
    from spqr_checks.alignment.training.preference import Preference
    from spqr_checks.alignment.training.preservation import PriorPreservation
    from spqr_checks.alignment.training.views import view_of

    view = view_of(pipe, request.sampler, "duo")
    choices = choose_each(request, options.pairs)
    pairs = edited_pairs(view, request, choices, options.strength, options.captions)
    objective = Preference(
        view, request, pairs, options, beta=2 * options.beta, share=options.share
    )
    prior = PriorPreservation(view, request, options.batch, options.error)
    given = options.prior_weight
    weight = 1e6 * options.beta / 100 if given is None else given
    objective.align(
        out,
        report,
        targets=view.self_targets,
        learning_rate=options.learning_rate or 3e-4 * 100 / options.beta,
        loss=lambda: objective.loss() + weight * prior.loss() if weight else objective.loss(),
    )


METHOD = Method("duo", DuoOptions, _align, transformers=True)
