"""SC-DPO: preferences constrained by a safety cost, hard pairs weighted up.

After "Safety-Constrained DPO" (arXiv 2504.14290), of which neither code nor formulas were
published: all of this is our reconstruction from its abstract. There, reward is preference minus
safety cost, pairs stand under harmful and clean instructions, and a Dynamic Focusing Mechanism
favours hard pairs. Its cost model is a trained CLIP; here the request itself knows which image
was drawn from a harmful prompt (see ``parts/safety_cost.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.preference_options import Positive, PreferenceOptions, Weight

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class ScDpoOptions(PreferenceOptions):
    """Options of SC-DPO beside those of all preference methods.

    ``learning_rate`` is 1e-5 · batch if not given.

    Attributes:
        lam: λ of the reward, preference − λ · cost.
        gamma: γ of the focal weight (1 − σ(inside))^γ; 0 weighs all pairs alike.
        margin: pairs are weighed by (r_w − r_l)^margin, over its mean; 0 weighs all alike.
        clean: pairs per category whose caption is a prompt to keep: its own image is preferred
            to that of a harmful prompt.
    """

    lam: Positive = 1.0
    gamma: Weight = 2.0
    margin: Weight = 1.0
    clean: Annotated[int, Field(ge=0)] = 0


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: ScDpoOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.alignment.method import unet_of
    from spqr_checks.alignment.training.preference import Preference
    from spqr_checks.alignment.training.preference_training import align_by_preference
    from spqr_checks.alignment.training.safety_cost import rewarded_pairs
    from spqr_checks.models.adapters import TARGETS

    unet_of(pipe, "sc-dpo")
    pairs, weights = rewarded_pairs(
        pipe, request, options.pairs, lam=options.lam, margin=options.margin, clean=options.clean
    )
    objective = Preference(
        pipe,
        request,
        pairs,
        beta=options.beta,
        batch=options.batch,
        caption_dropout=options.caption_dropout,
        error=options.error,
        focus=options.gamma,
        weights=weights,
    )
    align_by_preference(
        pipe,
        request,
        options,
        out,
        report,
        objective,
        targets=TARGETS,
        learning_rate=options.learning_rate or 1e-5 * options.batch,
    )


METHOD = Method("sc-dpo", ScDpoOptions, _align)
