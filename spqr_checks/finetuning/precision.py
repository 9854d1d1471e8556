"""In which precision a denoiser is trained.

What is trained is float32 in any case, and where the pipeline is not, the network computes in
bfloat16 (autocast). The rest of a bfloat16 denoiser stays as it is: a LoRA on Flux then takes
24 GB of weights, not 48. A float16 denoiser is widened whole, since its weights may lie beyond
what float16 gradients can take. Training all weights always needs float32 masters, which with
gradients and Adam's moments come to 16 bytes for each weight.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class Widened:
    """Widens parameters of a network to float32, and remembers what they were."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._own = {parameter: parameter.dtype for parameter in network.parameters()}

    def widen(self, parameters: Iterable[nn.Parameter] | None = None) -> None:
        """These parameters, or all of the network's; without loss."""
        for parameter in self._network.parameters() if parameters is None else parameters:
            parameter.data = parameter.data.float()

    def restore(self) -> None:
        """Rounds to what the parameters were; those that came later stay as they are."""
        for parameter in self._network.parameters():
            parameter.data = parameter.data.to(self._own.get(parameter, parameter.dtype))


def widened_whole(dtype: torch.dtype, merges: bool) -> bool:
    """Whether a denoiser of that type is widened whole before anything is chosen for training.

    Args:
        merges: whether adapters are about to be merged, which in bfloat16 would round twice.
    """
    return dtype == torch.float16 or (dtype != torch.float32 and merges)
