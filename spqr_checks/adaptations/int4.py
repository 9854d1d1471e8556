"""4 bits: integers with one scale for each group of a layer's inputs, symmetric."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from spqr_checks.adaptations.quantisation import Quantised


class Int4(Quantised):
    """torchao's ``IntxWeightOnlyConfig``, which keeps 4-bit values in bytes and runs anywhere.

    What is measured is what 4 bits do to the model, not the speed of a kernel.

    Attributes:
        group: inputs that share a scale. Layers whose inputs it does not divide stay as they are.
    """

    group: Annotated[int, Field(ge=2)] = 32

    def fits(self, width: int) -> bool:
        return width % self.group == 0

    def config(self) -> Any:
        import torch
        from torchao.quantization import IntxWeightOnlyConfig, PerGroup

        four_bits = torch.int4  # type: ignore[attr-defined]
        return IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(self.group))


ADAPTATION = Int4
