"""Safe Latent Diffusion: steers away from a safety concept at every step. Light.

Schramowski et al., "Safe Latent Diffusion: Mitigating Inappropriate Degeneration in Diffusion
Models" (CVPR 2023), equations 3 to 8. The paper's four configurations are options of the alignment
method. The authors' pipeline adds the safety concept as a third part to the batch of each
evaluation. Here it is an evaluation of its own: the pipeline's stays bit for bit what it is
without guidance.

The paper's equations are of noises. For networks that predict velocities, those of flow matching
among them (Stable Diffusion 3), noises are told from these, which is ours; so is all that concerns
transformers. Where guidance is distilled (Flux) there is no e_"", and SLD is not defined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import Guidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

    from spqr_checks.choices import Sampler
    from spqr_checks.generation.conditions import Conditions
    from spqr_checks.generation.guidance.steering.evaluation import Evaluation
    from spqr_checks.generation.guidance.steering.transformer import TransformerEvaluation


class SldGuidance(Guidance):
    """Parameters of SLD.

    Attributes:
        safety_prompt: names what is steered away from (the safety concept S).
        warmup: δ, sampler steps before the first that is steered.
        scale: s_S, how fast the element-wise scale grows to 1; 0 steers nothing.
        threshold: λ; elements where e_c − e_s ≥ λ are left alone.
        momentum_scale: s_m, weight of the momentum.
        momentum_beta: β_m, what the momentum keeps from one evaluation to the next.
    """

    kind: Literal["sld"] = "sld"
    safety_prompt: str
    warmup: Annotated[int, Field(ge=0)]
    scale: Annotated[float, Field(ge=0)]
    threshold: float
    momentum_scale: Annotated[float, Field(ge=0)]
    momentum_beta: Annotated[float, Field(ge=0, lt=1)]

    @property
    def acts(self) -> bool:
        return self.scale > 0

    def check(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        from spqr_checks.generation.guidance.steering.scheduler import check_scheduler

        _refuse_foreign(pipe, self.kind)
        if sampler.guidance <= 1:
            raise UserError(
                "SLD works through classifier-free guidance and needs sampler.guidance > 1, "
                f"not {sampler.guidance:g}"
            )
        if self.warmup >= sampler.steps:
            raise UserError(
                f"SLD's warm-up of {self.warmup} steps leaves none of the sampler's "
                f"{sampler.steps} to steer; set its option 'warmup' lower, or preset = \"max\""
            )
        check_scheduler(pipe.scheduler, flow=hasattr(pipe, "transformer"))

    def prepare(self, pipe: DiffusionPipeline) -> SldSteering:
        _refuse_foreign(pipe, self.kind)
        _refuse_truncated(pipe, self.safety_prompt)
        if hasattr(pipe, "transformer"):
            from spqr_checks.generation.guidance.steering.transformer import told

            return SldSteering(self, told(pipe, self.safety_prompt))
        from spqr_checks.generation.conditions import encode

        return SldSteering(self, encode(pipe, [self.safety_prompt]))


GUIDANCE = SldGuidance
_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


def _refuse_foreign(pipe: DiffusionPipeline, kind: str) -> None:
    if hasattr(pipe, "transformer"):
        from spqr_checks.generation.guidance.steering.transformer import refuse_unguided

        refuse_unguided(pipe, kind)
    else:
        from spqr_checks.generation.guidance.steering.evaluation import refuse_foreign

        refuse_foreign(pipe, kind)


def _refuse_truncated(pipe: DiffusionPipeline, prompt: str) -> None:
    """UserError for a prompt of which the text encoders would not read the end."""
    for tokenizer in (getattr(pipe, name, None) for name in _TOKENIZERS):
        if tokenizer is None:
            continue
        length, limit = len(tokenizer(prompt).input_ids), int(tokenizer.model_max_length)
        if length > limit:
            raise UserError(
                f"SLD's safety prompt has {length} tokens, of which the text encoder reads "
                f"{limit}; shorten it: {prompt!r}"
            )


def safety_guidance(
    without: Tensor, wanted: Tensor, concept: Tensor, momentum: Tensor, parameters: SldGuidance
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
    scale = growing.masked_fill(apart >= parameters.threshold, 0)
    away = (concept - without) * scale + parameters.momentum_scale * momentum
    beta = parameters.momentum_beta
    return away, beta * momentum + (1 - beta) * away


@dataclass(frozen=True)
class SldSteering:
    """SLD with its safety concept encoded (one row): for a UNet, or for a transformer by name."""

    parameters: SldGuidance
    concept: Conditions | Mapping[str, Tensor]

    @contextmanager
    def around(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Steers one call of the pipeline."""
        from spqr_checks.generation.guidance.steering.evaluation import Evaluation, steered
        from spqr_checks.generation.guidance.steering.transformer import TransformerEvaluation

        read: Any = TransformerEvaluation.of if isinstance(self.concept, dict) else Evaluation.of
        with steered(pipe, read, _Call(self, pipe).steer):
            yield


class _Call:
    """One call of the pipeline: its steps and its momentum, one per image."""

    def __init__(self, steering: SldSteering, pipe: DiffusionPipeline) -> None:
        from spqr_checks.generation.guidance.steering.scheduler import Progress

        self.parameters, self.concept, self.pipe = steering.parameters, steering.concept, pipe
        self.progress = Progress(pipe.scheduler)
        self.momentum: Tensor | None = None

    def steer(self, asked: Evaluation | TransformerEvaluation) -> Tensor | None:
        """Predictions with e_c − γ in the place of e_c.

        The pipeline makes e_"" + s_g ((e_c − γ) − e_"") of them, which is equation 3. The
        momentum grows from the first evaluation on, and at every one, as in the authors' code;
        the warm-up is counted in sampler steps (theirs in evaluations, which differ for Heun and
        PNDM only).
        """
        import torch

        from spqr_checks.generation.guidance.steering.scheduler import noise_per_output

        # pipelines of PixArt do not say; their sampler was checked
        if not getattr(self.pipe, "do_classifier_free_guidance", True):
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

    def _predict_concept(self, asked: Evaluation | TransformerEvaluation, n: int) -> Tensor:
        from spqr_checks.generation.guidance.steering.evaluation import Evaluation

        if not isinstance(asked, Evaluation):
            return asked.of_prompt(cast("Mapping[str, Tensor]", self.concept), slice(n, None))
        assert not isinstance(self.concept, Mapping)
        hidden = self.concept.hidden.to(asked.hidden).expand(n, -1, -1)
        pooled = self.concept.pooled
        if pooled is not None and asked.pooled is not None:
            pooled = pooled.to(asked.pooled).expand(n, -1)
        return asked.again(asked.sample[n:], hidden, pooled, slice(n, None))
