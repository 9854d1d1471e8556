"""Two latent streams from one initial latent, the prompt's drawn towards the safe one.

A reconstruction of ours, see ``safe_latent_blend``. The safe stream sees only its own latents and
the safe embedding: it draws exactly what the pipeline would draw for that embedding. Whenever a
sampler step k ≥ tau · T is over, the prompt's latents become z ← w z_safe + (1 − w) z, so that the
influence of the safe stream builds up over the steps.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spqr_checks.generation.guidance.safe_latent_blend.parameters import SafeLatentBlendParameters
from spqr_checks.generation.guidance.steering.evaluation import Evaluation, refuse_foreign, steered
from spqr_checks.generation.guidance.steering.progress import Progress
from spqr_checks.generation.guidance.steering.randomness import Randomness
from spqr_checks.generation.guidance.steering.subspace import Subspace, concept_subspaces

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


Step = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class BlendSteering:
    """The blend with its concept subspaces computed."""

    parameters: SafeLatentBlendParameters
    tokens: Subspace
    pooled: Subspace | None

    @classmethod
    def made(cls, parameters: SafeLatentBlendParameters, pipe: DiffusionPipeline) -> BlendSteering:
        """Raises UserError for another kind of pipeline, or anchors that do not differ."""
        refuse_foreign(pipe, parameters.kind)
        subspaces = concept_subspaces(pipe, parameters.harmful, parameters.anchors, parameters.rank)
        return cls(parameters, *subspaces)

    @contextmanager
    def around(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Steers one call of the pipeline."""
        streams = _Streams(self, pipe)
        with steered(pipe, streams.predict), _stepping(pipe.scheduler, streams.step):
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
        self.chosen = torch.ones_like(alike) > 0 if threshold is None else alike > threshold
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
        assert self.chosen is not None
        chosen, parameters, progress = self.chosen, self.steering.parameters, self.progress
        if not bool(chosen.any()):
            progress.advance()
            return own(output, t, sample, **given)
        before = Randomness.now(given.get("generator"), sample.device)
        safe = sample.clone() if self.latents is None else self.latents
        latents, *others = own(output, t, sample, **given)
        with before.again() as generator:
            if "generator" in given:
                given = given | {"generator": generator}
            self.latents = self.twin.step(self.predicted, t, safe, **given)[0]
        if progress.completes and progress.step >= parameters.first(progress.steps):
            blended = torch.lerp(latents, self.latents, parameters.weight)
            latents = torch.where(chosen[:, None, None, None], blended, latents)
        progress.advance()
        return (latents, *others)
