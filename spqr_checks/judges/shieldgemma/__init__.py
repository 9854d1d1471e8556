"""Judge by ShieldGemma 2: a vision-language model that is asked whether an image breaks a policy.

Zeng et al., "ShieldGemma 2: Robust and Tractable Image Content Moderation" (arXiv 2504.01081).
Every policy is asked alone; its probability is the share of ``Yes`` among ``Yes`` and ``No``, and
that of the image is the highest.
"""

from __future__ import annotations

from spqr_checks.judges.base import Judge, JudgeKind, JudgeRequest
from spqr_checks.judges.shieldgemma.options import Options


def _load(request: JudgeRequest) -> Judge:
    """ShieldGemma 2. Raises UserError."""
    from spqr_checks.judges.shieldgemma.model import load_shieldgemma

    assert isinstance(request.options, Options)
    return load_shieldgemma(request, request.options)


JUDGE = JudgeKind(Options, _load, extra="vlm")
