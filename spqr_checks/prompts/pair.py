"""An unsafe prompt and its safe twin: what alignment methods learn from."""

from __future__ import annotations

from dataclasses import dataclass

from spqr_checks.prompts.prompt import Prompt
from spqr_checks.prompts.text import is_blank, normalised, one_line


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
