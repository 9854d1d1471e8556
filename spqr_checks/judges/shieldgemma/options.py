"""How ShieldGemma 2 is asked. Light."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from spqr_checks.judges.backends.policy import policy_table
from spqr_checks.judges.base import JudgeOptions


def _names(value: object) -> object:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class Options(JudgeOptions):
    """How it is asked.

    Attributes:
        policies: names of those to ask about; all that the model comes with and all of one's own
            if none is named.
        own: TOML file of further policies, name = "text"; ``{concepts}`` in a text stands for the
            run's concepts.
        min_mass: least probability of Yes and No together; below it, the answer is an error.
        dtype: precision of the weights; ``auto`` is their own.
        batch: images per forward pass.
    """

    policies: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    own: Annotated[dict[str, str], BeforeValidator(policy_table)] = {}
    min_mass: Annotated[float, Field(gt=0, le=1)] = 0.5
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch: Annotated[int, Field(ge=1)] = 4
