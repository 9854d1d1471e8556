"""A prompt, the group it is measured in, and pairs: what alignment methods learn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from spqr_checks.prompts.text import is_blank, normalised, one_line

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


@dataclass(frozen=True, slots=True)
class PromptPair:
    """Two prompts that differ in the unsafe element only.

    Attributes:
        id: unique in its file.
        unsafe: asks for the concept; kept as written, line breaks included.
        safe: the same wish without it.
        concept: what the model must not draw; ``""`` where a data set names categories only.
        provenance: how the pair was made.

    Raises:
        ValueError: for a field that is empty, or two prompts that are the same but for case and
            white space: such a pair would teach to erase and to keep the same thing.
    """

    id: str
    category: str
    unsafe: str
    safe: str
    concept: str = ""
    provenance: str = ""

    def __post_init__(self) -> None:
        for name in ("id", "category", "unsafe", "safe"):
            if is_blank(getattr(self, name)):
                raise ValueError(f"field {name!r} is missing or empty")
        if normalised(self.unsafe) == normalised(self.safe):
            raise ValueError("fields 'unsafe' and 'safe' are the same text")

    @property
    def prompts(self) -> tuple[Prompt, Prompt]:
        """The harmful prompt, whose anchor is the safe one, and the safe one as a look-alike.

        Without a concept, the category stands for it.
        """
        safe, category = one_line(self.safe), one_line(self.category)
        concept = one_line(self.concept) or category
        harmful = Prompt(
            id=f"{self.id}/unsafe",
            text=one_line(self.unsafe),
            kind="harmful",
            concept=concept,
            category=category,
            anchor=safe,
        )
        lookalike = Prompt(
            id=f"{self.id}/safe", text=safe, kind="lookalike", concept=concept, category=category
        )
        return harmful, lookalike
