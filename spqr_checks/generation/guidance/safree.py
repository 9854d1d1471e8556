"""SAFREE: words that lie in the concepts' direction are projected out of a prompt. Light.

Yoon et al., "SAFREE: Training-Free and Adaptive Guard for Safe Text-to-Image and Video Generation"
(ICLR 2025, arXiv 2410.12761), equations 2 to 6, in the order of the authors' code for Stable
Diffusion 1. The pooled embeddings of the concepts' names span a subspace (projection P_C). A token
is a trigger if the prompt without it is further from that subspace than without its other tokens on
average, by more than a share α; its state is replaced by ``(I − P_C) P_I p``, P_I the projection on
what the prompt says without one token each. Self-validation: the further the projected prompt is
from the prompt, the more of the first steps are drawn with it.

Left out: latent re-attention, which damps low frequencies of the UNet's features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import Guidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from spqr_checks.choices import Sampler


class SafreeGuidance(Guidance):
    """Parameters of SAFREE.

    Attributes:
        concepts: texts that span the concepts' subspace.
        alpha: α.
        self_validation: whether the number of steps is chosen for each prompt; else all are drawn
            with the projected prompt.
        most_steps: the most that are chosen.
        midpoint, slope: of the number, ``most_steps · σ(2 slope (10 d − midpoint))`` with d the
            mean over the prompt's tokens of 1 − cos(p, (I − P_C) P_I p).
    """

    kind: Literal["safree"] = "safree"
    reads_tokens: ClassVar[bool] = True
    concepts: tuple[str, ...]
    alpha: Annotated[float, Field(ge=0)]
    self_validation: bool
    most_steps: Annotated[int, Field(ge=1)]
    midpoint: float
    slope: Annotated[float, Field(gt=0)]

    @property
    def acts(self) -> bool:
        return bool(self.concepts)

    def check(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        """Works with every sampler and scheduler."""

    def prepare(self, pipe: DiffusionPipeline) -> SafreeSteering:
        import torch
        from diffusers import StableDiffusionPipeline

        if not isinstance(pipe, StableDiffusionPipeline):
            raise UserError(
                "guidance 'safree' works inside one CLIP text encoder (Stable Diffusion 1 and 2); "
                f"this pipeline is a {type(pipe).__name__}"
            )
        given = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        length = int(pipe.tokenizer.model_max_length)
        ids = pipe.tokenizer(list(self.concepts), max_length=length, **given).input_ids
        with torch.no_grad():
            pooled = pipe.text_encoder(ids.to(pipe.device)).pooler_output
        return SafreeSteering(self, projection(pooled))

    def steps(self, distance: float) -> int:
        """The last step that is drawn with the projected prompt, counted from 0."""
        there = 1 / (1 + math.exp(-2 * self.slope * (10 * distance - self.midpoint)))
        return round(self.most_steps * there)


GUIDANCE = SafreeGuidance


def projection(vectors: Tensor) -> Tensor:
    """The orthogonal projection on what vectors span, double precision.

    Shape (width, width) for (n, width).
    """
    import torch

    rows = vectors.double()
    found: Tensor = torch.linalg.pinv(rows) @ rows
    return found


def triggers(without: Tensor, concept: Tensor, alpha: float) -> Tensor:
    """Which tokens are triggers, shape (tokens,).

    Args:
        without: pooled embeddings of the prompt without each of its tokens, (tokens, width).
        concept: P_C, shape (width, width).
        alpha: α.
    """
    import torch

    apart = (without.double() - without.double() @ concept).norm(dim=1)
    n = len(apart)
    if n < 2:
        return torch.zeros(n, dtype=torch.bool, device=without.device)
    others = (apart.sum() - apart) / (n - 1)
    found: Tensor = apart >= (1 + alpha) * others
    return found


@dataclass(frozen=True)
class SafreeSteering:
    """SAFREE with the concepts' subspace.

    Attributes:
        concept: P_C, shape (width, width).
    """

    guidance: SafreeGuidance
    concept: Tensor

    @contextmanager
    def around(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Replaces prompts in the first steps of one call of the pipeline."""
        call = _Call(self, pipe)
        with ExitStack() as hooks:
            hooks.enter_context(call.tokens.seen(pipe))
            hook = pipe.unet.register_forward_pre_hook(call.replace, with_kwargs=True)
            hooks.callback(hook.remove)
            yield

    def projected(self, pipe: DiffusionPipeline, ids: Tensor, hidden: Tensor) -> tuple[Tensor, int]:
        """Token states of one prompt with its triggers replaced, and the last step with them.

        Args:
            ids: its tokens, shape (tokens,).
            hidden: its states, shape (tokens, width).
        """
        import torch

        end = int(pipe.tokenizer.eos_token_id)
        words = int((ids == end).int().argmax()) - 1  # without start and end
        if words < 1:
            return hidden, -1
        masked = ids.repeat(words, 1)
        masked[torch.arange(words), torch.arange(words) + 1] = 0
        without = pipe.text_encoder(masked).pooler_output
        said, concept = projection(without), self.concept.to(without.device)
        states = hidden.double()
        safe = states @ said @ (torch.eye(len(concept)).to(concept) - concept)
        replaced = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        replaced[1 : words + 1] = triggers(without, concept, self.guidance.alpha)
        merged = torch.where(replaced[:, None], safe, states).to(hidden.dtype)
        if not self.guidance.self_validation:
            return merged, int(1e9)
        spoken = slice(0, words + 2)
        near = torch.cosine_similarity(safe[spoken], states[spoken], dim=1)
        return merged, self.guidance.steps(1 - float(near.mean()))


class _Call:
    """One call of the pipeline: its prompts, projected once, and the step it is in."""

    def __init__(self, steering: SafreeSteering, pipe: DiffusionPipeline) -> None:
        from spqr_checks.generation.guidance.steering.prompt_tokens import PromptTokens
        from spqr_checks.generation.guidance.steering.scheduler import Progress

        self.steering, self.pipe = steering, pipe
        self.tokens, self.progress = PromptTokens(), Progress(pipe.scheduler)
        self.safe: list[tuple[Tensor, int]] = []

    def replace(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The UNet's input with the projected prompts of this step, in the prompts' rows."""
        import torch

        hidden, ids = kwargs["encoder_hidden_states"], self.tokens.known
        self.progress.expect(args[1])
        own = hidden[-len(ids) :]
        if not self.safe:
            both = zip(ids, own, strict=True)
            self.safe = [self.steering.projected(self.pipe, *one) for one in both]
        step = self.progress.step
        rows = [
            safe if step <= last else plain
            for plain, (safe, last) in zip(own, self.safe, strict=True)
        ]
        self.progress.advance()
        changed = torch.cat([hidden[: -len(ids)], torch.stack(rows)])
        return args, kwargs | {"encoder_hidden_states": changed}
