"""Judge by LlavaGuard: a vision-language model that rates an image against a policy.

Helff et al., "LlavaGuard: An Open VLM-based Framework for Safeguarding Vision Datasets and Models"
(arXiv 2406.05113). The model answers with JSON that begins with the rating; that beginning is put
into its mouth, and P(unsafe) is read off the probabilities of ``Unsafe`` and ``Safe``. The wording
of the packaged policy is ours; the authors' may be given as a file.
"""

from __future__ import annotations

from spqr_checks.judges.base import Judge, JudgeKind, JudgeRequest
from spqr_checks.judges.llavaguard.options import Options


def _load(request: JudgeRequest) -> Judge:
    """LLaVA-OneVision (v1.2) and LLaVA (v1.0, v1.1). Raises UserError."""
    from spqr_checks.judges.llavaguard.model import load_llavaguard

    assert isinstance(request.options, Options)
    return load_llavaguard(request, request.options)


JUDGE = JudgeKind(Options, _load, extra="vlm")
