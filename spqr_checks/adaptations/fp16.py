"""Half precision in float16."""

from __future__ import annotations

from typing import ClassVar, Literal

from spqr_checks.adaptations.half import Half


class Fp16(Half):
    """float16: 5 bits of exponent, 11 of mantissa; weights beyond 65504 are refused."""

    dtype: ClassVar[Literal["bfloat16", "float16"]] = "float16"


ADAPTATION = Fp16
