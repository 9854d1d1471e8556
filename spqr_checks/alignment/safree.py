"""SAFREE: words in the concepts' direction are projected out while images are drawn; no training.

Yoon et al., "SAFREE: Training-Free and Adaptive Guard for Safe Text-to-Image and Video Generation"
(ICLR 2025, arXiv 2410.12761). What it does, and what is left out of it, stands in
``generation.guidance.safree``. Defaults are the authors' for nudity; their midpoint and slope for
artists' styles are 5.5 and 3.5, and their ten steps are meant for 50.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Method, Options
from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.safree import SafreeGuidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class SafreeOptions(Options):
    """Options of SAFREE.

    Attributes:
        subspace: spanned by the names of the request's ``concepts``, or by its ``harmful``
            prompts, which is ours.
        alpha, self_validation, most_steps, midpoint, slope: of the guidance.
    """

    subspace: Literal["concepts", "harmful"] = "concepts"
    alpha: Annotated[float, Field(ge=0)] = 0.01
    self_validation: bool = True
    most_steps: Annotated[int, Field(ge=1)] = 10
    midpoint: float = 5.333
    slope: Annotated[float, Field(gt=0)] = 2.5


def _align(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: SafreeOptions,
    out: Path,
    report: Report,
) -> None:
    from spqr_checks.generation.guidance.base import attach_guidance
    from spqr_checks.generation.guidance.registry import save_guidance

    texts = request.concepts if options.subspace == "concepts" else request.harmful
    if not texts:
        raise UserError(
            "method 'safree' projects out concepts by name, and the training set names none; say "
            "subspace = 'harmful' to take its harmful prompts"
        )
    given = options.model_dump(exclude={"subspace"})
    guidance = SafreeGuidance(concepts=tuple(dict.fromkeys(texts)), **given)
    attach_guidance(pipe, guidance)
    save_guidance(guidance, out)


# users fine-tune the UNet, which is the base's own: one training serves both
METHOD = Method("safree", SafreeOptions, _align, attach="base")
