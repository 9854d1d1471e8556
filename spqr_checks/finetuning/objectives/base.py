"""What every loss answers to the training loop."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Objective(Protocol):
    """Forward process and regression target of one kind of model; the loss is the mean square.

    Times are those of the pipeline's scheduler, between 0 and its number of training steps, one
    for each image of a batch.
    """

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts; part of a fine-tuning's record."""
        ...

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        """Times for ``n`` images, drawn as in ordinary training, shape (n,), on the CPU."""
        ...

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The latents at these times, shape of ``latents``."""
        ...

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser should predict from them, shape of ``latents``."""
        ...
