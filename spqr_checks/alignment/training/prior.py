"""DUO's second term: from pure noise and without a prompt, the model predicts as it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.embeddings import encode
from spqr_checks.alignment.training.latents import Noiser, Predictor
from spqr_checks.alignment.training.preference import ErrorOf, adapter_off, error_factor

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class PriorPreservation:
    """Mean squared distance to the reference's prediction at (x_T, T − 1, "").

    Park et al., "Direct Unlearning Optimization for Robust and Safe Text-to-Image Models" (NeurIPS
    2024) and its code. There the noise is that of the pairs; here it is drawn apart. The reference
    is the network with its adapter off.
    """

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, batch: int, error: ErrorOf
    ) -> None:
        self.network: nn.Module = pipe.unet
        self.predictor = Predictor(pipe, request.sampler)
        self.unconditional = encode(pipe, [""]).repeated(batch)
        self.generator = torch.Generator("cpu").manual_seed(request.seed + 1)
        self.device = self.unconditional.hidden.device
        schedule = Noiser(pipe)
        self.t = torch.full((batch,), schedule.timesteps - 1, device=self.device)
        self.factor = float(error_factor(schedule, error, self.t[:1]))

    def loss(self) -> Tensor:
        """The unweighted term at fresh noise."""
        shape = (len(self.t), *self.predictor.shape)
        x = torch.randn(shape, generator=self.generator).to(self.device)
        with adapter_off(self.network), torch.no_grad():
            reference = self.predictor(self.network, x, self.t, self.unconditional)
        predicted = self.predictor(self.network, x, self.t, self.unconditional)
        return self.factor * F.mse_loss(predicted, reference)
