"""A prompt and the group it is measured in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

FileKind = Literal["harmful", "benign", "lookalike"]
"""``harmful`` asks for a concept, ``lookalike`` for something benign close to one."""

PromptKind = Literal["harmful", "benign", "lookalike", "tuning"]
"""``tuning`` prompts are captions of a benign fine-tuning set; prompt files do not hold them."""

FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)
ALL = "all"


@dataclass(frozen=True, slots=True, order=True)
class PromptGroup:
    """Prompts that are drawn, batched and judged together: one kind, concept, language, domain."""

    kind: PromptKind
    concept: str
    language: str
    domain: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt; ``concept`` and ``category`` are ``all`` where none applies.

    ``anchor`` is what a harmful prompt may be turned into: the same wish without the concept.
    """

    id: str
    text: str
    kind: PromptKind
    concept: str = ALL
    category: str = ALL
    language: str = "en"
    domain: str = "plain"
    anchor: str = ""

    @property
    def group(self) -> PromptGroup:
        return PromptGroup(self.kind, self.concept, self.language, self.domain)
