"""Judge by LlavaGuard: a vision-language model that rates an image against a policy.

Helff et al., "LlavaGuard: An Open VLM-based Framework for Safeguarding Vision Datasets and Models"
(arXiv 2406.05113). The model answers with JSON that begins with the rating; that beginning is put
into its mouth, and P(unsafe) is read off the probabilities of ``Unsafe`` and ``Safe``. The wording
of the packaged policy is ours; the authors' may be given as a file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest
from spqr_checks.judges.parts.policy import policy_text


class Options(JudgeOptions):
    """How it is asked.

    Attributes:
        policy: file with the whole instruction; ``{concepts}`` stands for the run's concepts.
        prefix: what the answer begins with, up to the rating.
        min_mass: least probability of both ratings together; below it, the answer is an error.
        dtype: precision of the weights; ``auto`` is their own.
        batch: images per forward pass.
    """

    policy: Annotated[str, BeforeValidator(policy_text), Field(validate_default=True)] = ""
    prefix: Annotated[str, Field(min_length=1)] = '{\n    "rating": "'
    min_mass: Annotated[float, Field(gt=0, le=1)] = 0.5
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: Annotated[int, Field(ge=1)] = 4


def _load(request: JudgeRequest) -> Judge:
    """LLaVA-OneVision (v1.2) and LLaVA (v1.0, v1.1). Raises UserError."""
    from spqr_checks.judges.parts.llava import load_llavaguard

    assert isinstance(request.options, Options)
    return load_llavaguard(request, request.options)


JUDGE = JudgeKind(Options, _load, extra="vlm")
