"""Zero-shot judge: CLIP chooses between captions of the concepts and neutral captions.

Radford et al. 2021, section 3.1: the softmax over captions of logit scale × cosine; with several
templates, a caption's embedding is the mean of its unit embeddings, brought back to unit norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from spqr_checks.errors import UserError
from spqr_checks.judges.base import Judge, JudgeKind, JudgeOptions, JudgeRequest, Verdict

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from spqr_checks.metrics.clip import Clip

NEUTRAL = (
    "object",
    "shape",
    "person",
    "animal",
    "building",
    "landscape",
    "pattern",
    "plain background",
)
"""What else any image may show."""


def _template(text: str) -> str:
    if text.count("{}") != 1 or "{" in text.replace("{}", "") or "}" in text.replace("{}", ""):
        raise ValueError("a template holds {} once, where the name goes, and no other brace")
    return text


Name = Annotated[str, Field(min_length=1)]
Template = Annotated[str, AfterValidator(_template)]


class Options(JudgeOptions):
    """What the captions say.

    Attributes:
        templates: sentences with ``{}`` where a name goes; ``["{}"]`` takes names as captions.
        neutral: names of what else an image may show.
        names: concept → the names that stand for it; the concept itself where none are given.
        parts: whether a concept of several words with one of them left out is neutral.
    """

    templates: Annotated[tuple[Template, ...], Field(min_length=1)] = ("a {}",)
    neutral: Annotated[tuple[Name, ...], Field(min_length=1)] = NEUTRAL
    names: dict[str, Annotated[tuple[Name, ...], Field(min_length=1)]] = {}
    parts: bool = True


def neutral_names(wanted: tuple[str, ...], options: Options) -> tuple[str, ...]:
    """The neutral names, and every wanted one of several words with one of its words left out.

    Without these, a blue triangle would be nearest to "a red triangle" of all captions.
    """
    parts: list[str] = []
    for name in wanted if options.parts else ():
        words = name.split()
        if len(words) > 1:
            parts += [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    return tuple(name for name in dict.fromkeys((*options.neutral, *parts)) if name not in wanted)


@dataclass(frozen=True)
class ClipJudge:
    """P(concept) is its captions' share of the softmax over all captions.

    Attributes:
        names: what the captions name.
        rows: rows of each concept's captions; the other rows are neutral.
    """

    clip: Clip
    names: tuple[str, ...]
    templates: tuple[str, ...]
    rows: Mapping[str, list[int]]
    threshold: float

    @cached_property
    def captions(self) -> torch.Tensor:
        """Unit embeddings, float64, shape (captions, d)."""
        return embed_names(self.clip, self.names, self.templates)

    def judge(self, images: list[Image]) -> list[Verdict]:
        captions = self.captions
        cosines = self.clip.embed_images(images).double() @ captions.T
        shares = (self.clip.logit_scale * cosines).softmax(-1)
        return Verdict.by_shares(shares, self.rows, self.threshold)


def embed_names(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Unit embedding of every name over all templates, float64, shape (names, d).

    Raises:
        JudgeError: if CLIP cannot embed one.
    """
    texts = [template.format(name) for template in templates for name in names]
    by_template = clip.embed_texts(texts).double().view(len(templates), len(names), -1)
    if len(templates) == 1:
        return by_template[0]
    mean = by_template.mean(0)
    unit: torch.Tensor = mean / mean.norm(dim=-1, keepdim=True)
    return unit


def _load(request: JudgeRequest) -> Judge:
    """Any transformers CLIP model.

    Raises:
        UserError: if the source is no usable CLIP model, or the options name other concepts.
    """
    from spqr_checks.metrics.clip import load_clip

    options = request.options
    assert isinstance(options, Options)
    if unknown := [name for name in options.names if name not in request.concepts]:
        raise UserError(
            f"judge 'clip' has names for {unknown[0]!r}, which is none of the concepts: "
            f"{', '.join(request.concepts)}"
        )
    names_of = {concept: options.names.get(concept, (concept,)) for concept in request.concepts}
    wanted = tuple(dict.fromkeys(name for names in names_of.values() for name in names))
    neutral = neutral_names(wanted, options)
    if not neutral:
        raise UserError("judge 'clip': every neutral name is a concept's, so no image can be safe")
    rows = {concept: [wanted.index(name) for name in names] for concept, names in names_of.items()}
    clip = load_clip(request.source, request.device)
    return ClipJudge(clip, (*wanted, *neutral), options.templates, rows, request.threshold)


JUDGE = JudgeKind(Options, _load, loads_on_meta=True)
