"""Safe Latent Diffusion's arithmetic (Schramowski et al. 2023, equations 3 to 8).

The authors' pipeline adds the safety concept as a third part to the batch of each evaluation.
Here it is an evaluation of its own: the pipeline's stays bit for bit what it is without guidance.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spqr_checks.generation.guidance.sld.parameters import SldParameters
from spqr_checks.generation.guidance.steering.conditions import Conditions, encode, refuse_truncated
from spqr_checks.generation.guidance.steering.evaluation import Evaluation, refuse_foreign, steered
from spqr_checks.generation.guidance.steering.noise import noise_per_output
from spqr_checks.generation.guidance.steering.progress import Progress

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def safety_guidance(
    without: Tensor, wanted: Tensor, concept: Tensor, momentum: Tensor, parameters: SldParameters
) -> tuple[Tensor, Tensor]:
    """γ and the next momentum ν, both of the shape of the noises.

    μ = min(1, s_S |e_c − e_s|), and 0 where e_c − e_s ≥ λ;
    γ = μ (e_s − e_"") + s_m ν;  ν ← β_m ν + (1 − β_m) γ.

    Args:
        without, wanted, concept: noise for the empty (or negative) prompt, the prompt and the
            safety concept; an offset that all three share makes no difference.
    """
    apart = wanted - concept
    growing = (apart.abs() * parameters.scale).clamp(max=1.0)
    scale = torch.where(apart >= parameters.threshold, torch.zeros_like(growing), growing)
    away = (concept - without) * scale + parameters.momentum_scale * momentum
    beta = parameters.momentum_beta
    return away, beta * momentum + (1 - beta) * away


@dataclass(frozen=True)
class SldSteering:
    """SLD with its safety concept encoded (one row)."""

    parameters: SldParameters
    concept: Conditions

    @classmethod
    def made(cls, parameters: SldParameters, pipe: DiffusionPipeline) -> SldSteering:
        """Raises UserError for another kind of pipeline or too long a safety prompt."""
        refuse_foreign(pipe, parameters.kind)
        refuse_truncated(pipe, parameters.safety_prompt, "SLD's safety prompt")
        return cls(parameters, encode(pipe, [parameters.safety_prompt]))

    @contextmanager
    def around(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Steers one call of the pipeline."""
        with steered(pipe, _Call(self, pipe).steer):
            yield


class _Call:
    """One call of the pipeline: its steps and its momentum, one per image."""

    def __init__(self, steering: SldSteering, pipe: DiffusionPipeline) -> None:
        self.parameters, self.concept = steering.parameters, steering.concept
        self.pipe = pipe
        self.progress = Progress(pipe.scheduler)
        self.momentum: Tensor | None = None

    def steer(self, asked: Evaluation) -> Tensor | None:
        """Predictions with e_c − γ in the place of e_c.

        The pipeline makes e_"" + s_g ((e_c − γ) − e_"") of them, which is equation 3. The
        momentum grows from the first evaluation on, and at every one, as in the authors' code;
        the warm-up is counted in sampler steps (theirs in evaluations, which differ for Heun and
        PNDM only).
        """
        if not self.pipe.do_classifier_free_guidance:
            raise ValueError("SLD works through classifier-free guidance; this call has none")
        progress = self.progress
        progress.expect(asked.t)
        n = len(asked.sample) // 2
        # with a velocity of pure noise, α = 0, predictions differ in no noise at all
        per_output = noise_per_output(self.pipe.scheduler, progress.evaluation)
        parts = (*asked.predicted.chunk(2), self._predict_concept(asked, n))
        # in single precision at least: s_S is in the thousands
        precision = torch.promote_types(asked.predicted.dtype, torch.float32)
        without, wanted, concept = (part.to(precision) * per_output for part in parts)
        if self.momentum is None:
            self.momentum = torch.zeros_like(without)
        away, self.momentum = safety_guidance(
            without, wanted, concept, self.momentum, self.parameters
        )
        due = progress.step >= self.parameters.warmup
        progress.advance()
        if not due or per_output == 0:
            return None
        steered_away = asked.predicted[n:].to(precision) - away / per_output
        return torch.cat([asked.predicted[:n], steered_away.to(asked.predicted.dtype)])

    def _predict_concept(self, asked: Evaluation, n: int) -> Tensor:
        hidden = self.concept.hidden.to(asked.hidden).expand(n, -1, -1)
        pooled = self.concept.pooled
        if pooled is not None and asked.pooled is not None:
            pooled = pooled.to(asked.pooled).expand(n, -1)
        return asked.again(asked.sample[n:], hidden, pooled, slice(n, None))
