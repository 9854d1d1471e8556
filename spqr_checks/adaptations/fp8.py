"""8 bits of floating point (e4m3) with one scale for each output of a layer."""

from __future__ import annotations

from typing import Any

from spqr_checks.adaptations.quantisation import Quantised


class Fp8(Quantised):
    """torchao's ``Float8WeightOnlyConfig``; the values are widened to be computed with."""

    def config(self) -> Any:
        from torchao.quantization import Float8WeightOnlyConfig

        return Float8WeightOnlyConfig(set_inductor_config=False)


ADAPTATION = Fp8
