"""Preservation for adapters: for prompts to keep, the model predicts what its base predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spqr_checks.alignment.request import AlignmentRequest
from spqr_checks.alignment.training.embeddings import encode
from spqr_checks.alignment.training.erasing_options import ErasingOptions
from spqr_checks.alignment.training.keep import Keep, prompts_to_keep
from spqr_checks.alignment.training.latents import Noiser, Predictor
from spqr_checks.alignment.training.pools import draw_pool
from spqr_checks.alignment.training.preference import adapter_off
from spqr_checks.alignment.training.preference_options import PreferenceOptions

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Kept:
    """Mean squared distance between the adapted and the plain network's predictions.

    The batches are those of ESD's preservation loss. Their latents are drawn by the base, as the
    run draws images, when this is made.
    """

    def __init__(
        self, pipe: DiffusionPipeline, request: AlignmentRequest, options: PreferenceOptions
    ) -> None:
        self.network: nn.Module = pipe.unet
        self.predictor, self.seed = Predictor(pipe, request.sampler), request.seed + 2
        self.generator = torch.Generator("cpu").manual_seed(self.seed)
        texts, near = prompts_to_keep(request)
        sampler = request.sampler
        self.keep = Keep(
            encode(pipe, texts),
            near,
            encode(pipe, [""]),
            draw_pool(
                pipe,
                texts,
                options.pool,
                sampler,
                guidance=sampler.guidance,
                seed=self.seed,
                generator=self.generator,
            ),
            ErasingOptions(
                batch=options.batch,
                keep_batch=options.keep_batch,
                lookalike_share=options.lookalike_share,
                keep_unconditional=options.keep_unconditional,
            ),
            Noiser(pipe),
            self.generator,
        )

    def restart(self) -> None:
        """Goes back to the first batch, for the training of another expert."""
        self.generator.manual_seed(self.seed)

    def loss(self) -> Tensor:
        """The unweighted term at a fresh batch."""
        prompts, x, t = self.keep.batch()
        with adapter_off(self.network), torch.no_grad():
            target = self.predictor(self.network, x, t, prompts)
        return F.mse_loss(self.predictor(self.network, x, t, prompts), target)
