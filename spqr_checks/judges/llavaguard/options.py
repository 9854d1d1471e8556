"""How LlavaGuard is asked. Light."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from spqr_checks.judges.backends.policy import policy_text
from spqr_checks.judges.base import JudgeOptions


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
