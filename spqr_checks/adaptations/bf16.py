"""Half precision in bfloat16."""

from __future__ import annotations

from typing import ClassVar, Literal

from spqr_checks.adaptations.half import Half


class Bf16(Half):
    """bfloat16: 8 bits of exponent, 8 of mantissa."""

    dtype: ClassVar[Literal["bfloat16", "float16"]] = "bfloat16"


ADAPTATION = Bf16
