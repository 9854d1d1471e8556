"""8 bits: integers with one scale for each output of a layer, symmetric."""

from __future__ import annotations

from typing import Any

from spqr_checks.adaptations.quantisation import Quantised


class Int8(Quantised):
    """torchao's ``Int8WeightOnlyConfig``."""

    def config(self) -> Any:
        from torchao.quantization import Int8WeightOnlyConfig

        return Int8WeightOnlyConfig(set_inductor_config=False)


ADAPTATION = Int8
