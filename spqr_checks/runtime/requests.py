"""What an alignment method is asked for, from settings and prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spqr_checks.alignment.request import AlignmentRequest
    from spqr_checks.prompts.prompt_set import PromptSet
    from spqr_checks.settings import Settings


def alignment_request(settings: Settings, prompts: PromptSet) -> AlignmentRequest:
    """The request of one alignment.

    Raises:
        UserError: if no prompt is harmful.
    """
    from spqr_checks.alignment.request import AlignmentRequest

    harmful = [p for p in prompts.prompts if p.kind == "harmful"]
    return AlignmentRequest(
        concepts=list(prompts.concepts),
        harmful=[p.text for p in harmful],
        anchors=[p.anchor for p in harmful],
        categories=[p.category for p in harmful],
        keep=[p.text for p in prompts.prompts if p.kind != "harmful"],
        lookalikes=[p.text for p in prompts.prompts if p.kind == "lookalike"],
        seed=settings.alignment_seed,
        threads=settings.threads,
        sampler=settings.sampler,
    )
