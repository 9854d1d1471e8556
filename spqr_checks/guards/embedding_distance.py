"""``embedding-distance``: refuses prompts whose text embedding lies near that of a concept's name.

The baseline of Latent Guard (Liu et al., arXiv 2404.08031, "CLIPScore"): the score is the largest
cosine of the end-of-text state of the prompt with those of the concepts' names. Nothing is learned
but the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spqr_checks.guards import folder
from spqr_checks.guards.base import Answer, GuardKind, GuardOptions, GuardRequest, TrainingRequest

if TYPE_CHECKING:
    from torch import Tensor

    from spqr_checks.guards.text_encoder import TextEncoder

_NAME = "embedding-distance"


class Options(GuardOptions):
    """``threshold``: of the cosine; that of the training if not given."""

    threshold: float | None = None


@dataclass(frozen=True)
class EmbeddingDistance:
    """``concepts`` holds unit vectors, shape (concepts, width)."""

    encoder: TextEncoder
    concepts: Tensor
    threshold: float = 0.0

    def scores(self, prompts: Sequence[str]) -> list[float]:
        """The largest cosine of each prompt with a concept, in [−1, 1]."""
        cosines = _unit(self.encoder, prompts) @ self.concepts.T
        found: list[float] = cosines.amax(1).tolist()
        return found

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        return [Answer(score > self.threshold, score) for score in self.scores(prompts)]


def _unit(encoder: TextEncoder, texts: Sequence[str]) -> Tensor:
    end = encoder.encode(texts)[1]
    unit: Tensor = end / end.norm(dim=-1, keepdim=True)
    return unit


def _load(request: GuardRequest) -> EmbeddingDistance:
    from spqr_checks.guards.text_encoder import load_text_encoder

    record = folder.read_record(request.source, _NAME)
    encoder = load_text_encoder(request.source, request.device)
    chosen = request.options.threshold
    threshold = record.threshold if chosen is None else chosen
    return EmbeddingDistance(encoder, _unit(encoder, record.concepts), threshold)


def _train(request: TrainingRequest, options: GuardOptions, out: Path) -> None:
    from spqr_checks.guards.text_encoder import load_text_encoder

    encoder = load_text_encoder(request.base)
    guard = EmbeddingDistance(encoder, _unit(encoder, request.concepts))
    encoder.save(out)
    folder.finish(out, _NAME, request, guard.scores, options)


GUARD = GuardKind(
    Options,
    _load,
    "required",
    folder.contents(_NAME),
    ("torch", "transformers", "tokenizers"),
    train=_train,
)
