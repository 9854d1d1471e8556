"""Safe latent blend: the latents of a prompt are drawn towards those of its safe version. Light.

Our reconstruction of Vice et al., "Safety Without Semantic Disruptions: Editing-free Safe Image
Generation via Context-preserving Dual Latent Reconstruction" (arXiv 2411.13982). From the paper
come the two latent streams (the prompt's and its safe embedding's), their tunable weighted sum and
a threshold tau_gc for the global context. The embedding (``steering.subspace``), the schedule and
the gate are choices of ours; the authors' code is not public.

Both streams start from one initial latent. The safe stream sees only its own latents and the safe
embedding: it draws exactly what the pipeline would draw for that embedding. Whenever a sampler
step k ≥ tau · T is over, the prompt's latents become z ← w z_safe + (1 − w) z, so that the
influence of the safe stream builds up over the steps.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import Guidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

    from spqr_checks.choices import Sampler
    from spqr_checks.generation.guidance.steering.evaluation import Evaluation
    from spqr_checks.generation.guidance.steering.subspace import Subspace

Share = Annotated[float, Field(ge=0, le=1)]
Step = Callable[..., tuple[Any, ...]]


class SafeLatentBlendGuidance(Guidance):
    """Parameters of the blend.

    Attributes:
        weight: w of z ← w z_safe + (1 − w) z.
        tau: share of the steps that come before the first blend: they lay out the image.
        rank: dimensions of the concept subspace, at most.
        threshold: only prompts whose similarity to the concept subspace is above it are blended
            (our reading of the paper's switch); None blends every prompt.
        harmful, anchors: prompts with the concept and, one for each, without; the concept
            subspace is computed from them.
    """

    kind: Literal["safe-latent-blend"] = "safe-latent-blend"
    weight: Share
    tau: Annotated[float, Field(ge=0, lt=1)]
    rank: Annotated[int, Field(ge=1)]
    threshold: Annotated[float, Field(ge=0, lt=1)] | None
    harmful: Annotated[tuple[str, ...], Field(min_length=1)]
    anchors: tuple[str, ...]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.anchors) != len(self.harmful):
            raise ValueError("one anchor is needed for each harmful prompt")
        return self

    @property
    def acts(self) -> bool:
        return self.weight > 0

    def first(self, steps: int) -> int:
        """Index of the first sampler step after which latents are blended: ⌈tau · steps⌉."""
        # rounded, or 0.7 of 10 steps would be the eighth
        return math.ceil(round(self.tau * steps, 6))

    def check(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        if self.first(sampler.steps) >= sampler.steps:
            raise UserError(
                f"safe-latent-blend: tau {self.tau:g} leaves none of the sampler's "
                f"{sampler.steps} steps to blend; set its option 'tau' lower"
            )

    def prepare(self, pipe: DiffusionPipeline) -> BlendSteering:
        from spqr_checks.generation.guidance.steering.evaluation import refuse_foreign
        from spqr_checks.generation.guidance.steering.subspace import concept_subspaces

        refuse_foreign(pipe, self.kind)
        return BlendSteering(self, *concept_subspaces(pipe, self.harmful, self.anchors, self.rank))


GUIDANCE = SafeLatentBlendGuidance


@dataclass(frozen=True)
class BlendSteering:
    """The blend with its concept subspaces computed."""

    parameters: SafeLatentBlendGuidance
    tokens: Subspace
    pooled: Subspace | None

    @contextmanager
    def around(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Steers one call of the pipeline."""
        from spqr_checks.generation.guidance.steering.evaluation import Evaluation, steered

        streams = _Streams(self, pipe)
        with steered(pipe, Evaluation.of, streams.predict), _stepping(pipe.scheduler, streams.step):
            yield


@contextmanager
def _stepping(scheduler: Any, step: Step) -> Iterator[None]:
    """Hands every step of the scheduler to ``step``, together with the scheduler's own."""
    own = scheduler.step

    @functools.wraps(own)  # pipelines look at its parameters
    def replaced(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return step(own, *args, **kwargs)

    scheduler.step = replaced
    try:
        yield
    finally:
        del scheduler.step


class _Streams:
    """One call of the pipeline: the safe stream beside the pipeline's own."""

    def __init__(self, steering: BlendSteering, pipe: DiffusionPipeline) -> None:
        from spqr_checks.generation.guidance.steering.scheduler import Progress

        self.steering, self.pipe = steering, pipe
        self.progress = Progress(pipe.scheduler)
        self.twin: Any = None
        self.chosen: Tensor | None = None  # (n,): the images to blend
        self.hidden: Tensor | None = None  # as asked, with safe prompts
        self.pooled: Tensor | None = None
        self.latents: Tensor | None = None  # of the safe stream
        self.predicted: Tensor | None = None

    def predict(self, asked: Evaluation) -> None:
        """Predicts for the safe stream; the pipeline's own prediction stays as it is."""
        import torch

        self.progress.expect(asked.t)
        guided = bool(self.pipe.do_classifier_free_guidance)
        if self.chosen is None:
            self._start(asked, slice(len(asked.hidden) // 2 if guided else 0, None))
        assert self.chosen is not None
        assert self.hidden is not None
        if not bool(self.chosen.any()):
            return
        sample = asked.sample
        if self.latents is not None:
            scaled = self.twin.scale_model_input(self.latents, asked.t)
            sample = torch.cat([scaled] * 2) if guided else scaled
        predicted = asked.again(sample, self.hidden, self.pooled)
        if guided:
            # as the pipelines write it, so that the last bits agree
            without, wanted = predicted.chunk(2)
            predicted = without + self.pipe.guidance_scale * (wanted - without)
        self.predicted = predicted

    def _start(self, asked: Evaluation, prompts: slice) -> None:
        """Safe prompts, and a scheduler just as the pipeline has set up its own."""
        if getattr(self.pipe, "guidance_rescale", 0.0) > 0:
            raise ValueError("guidance_rescale is not known to the safe stream")
        tokens, threshold = self.steering.tokens, self.steering.parameters.threshold
        alike = tokens.similarity(asked.hidden[prompts])
        self.chosen = alike.new_ones(len(alike)) > 0 if threshold is None else alike > threshold
        self.hidden = asked.hidden.clone()
        self.hidden[prompts] = tokens.without(self.hidden[prompts])
        if asked.pooled is not None and self.steering.pooled is not None:
            self.pooled = asked.pooled.clone()
            self.pooled[prompts] = self.steering.pooled.without(self.pooled[prompts])
        self.twin = copy.deepcopy(self.pipe.scheduler)
        del self.twin.step  # the copy of the replaced one; its class has its own

    def step(
        self, own: Step, output: Tensor, t: Tensor, sample: Tensor, **given: Any
    ) -> tuple[Any, ...]:
        """A step of both schedulers with the same random numbers, and the blend."""
        from spqr_checks.generation.guidance.steering.scheduler import drawn_again

        assert self.chosen is not None
        chosen, parameters, progress = self.chosen, self.steering.parameters, self.progress
        if not bool(chosen.any()):
            progress.advance()
            return own(output, t, sample, **given)
        again = drawn_again(given.get("generator"), sample.device)
        safe = sample.clone() if self.latents is None else self.latents
        latents, *others = own(output, t, sample, **given)
        with again() as generator:
            if "generator" in given:
                given = given | {"generator": generator}
            self.latents = self.twin.step(self.predicted, t, safe, **given)[0]
        if progress.completes and progress.step >= parameters.first(progress.steps):
            blended = latents.lerp(self.latents, parameters.weight)
            latents = blended.where(chosen[:, None, None, None], latents)
        progress.advance()
        return (latents, *others)
