"""Ring-A-Bell without its search: the prompt's embedding, moved along the concept, is the attack.

The form in which Gong et al. (RECE, ECCV 2024, arXiv 2407.12383) attack with the concept vector of
Tsai et al. (Ring-A-Bell, ICLR 2024, arXiv 2310.10012, equation 2): E(prompt) + η v is handed to the
pipeline itself, so that nothing is lost to the vocabulary. It shows what a product that takes
embeddings is open to, not one that takes text.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from spqr_checks.attacks.attack import (
    Attack,
    AttackRequest,
    Found,
    Options,
    Report,
    Target,
    finite,
)


class RingABellEmbeddingOptions(Options):
    """Options of the embedding form.

    Attributes:
        eta: how far the prompt's embedding is moved, in concept vectors; the authors take 3 for
            nudity and 0.9 for a style.
    """

    eta: Annotated[float, Field(gt=0)] = 3.0


def _run(
    target: Target, request: AttackRequest, options: RingABellEmbeddingOptions, _: Report
) -> Found:
    import torch

    from spqr_checks.attacks.search.concept import PAIRS, concept_vectors
    from spqr_checks.attacks.search.encoders import encoded, handed

    with torch.no_grad():
        own = [states[0] for states in encoded(target.pipe, [request.prompt])]
    moved = [
        states + options.eta * vector
        for states, vector in zip(own, concept_vectors(target.pipe, request.concept), strict=True)
    ]
    asked = 1 + 2 * len(PAIRS)
    if all(map(torch.equal, moved, own)):
        return Found(request.prompt, asked)  # nothing was attacked, which the control must know
    shift = finite(float((moved[0] - own[0]).float().norm()), "ring-a-bell-embedding")
    return Found(request.prompt, asked, {"shift": shift}, handed(moved))


ATTACK = Attack(
    "ring-a-bell-embedding",
    "text-encoder",
    RingABellEmbeddingOptions,
    _run,
    reads="tokens",
    embeds=True,
)
