"""What an alignment method is asked to do. Light: holds text and settings only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.hashing import digest


@dataclass(frozen=True)
class AlignmentRequest:
    """Prompts, seed and sampling settings of one alignment.

    Attributes:
        concepts: names of what the model must not draw.
        harmful: prompts that ask for a concept.
        anchors: what to draw instead, one per harmful prompt; ``""`` is the unconditional prompt.
        keep: prompts whose images are to stay as they are.
        seed: decides every random choice of the method.
        threads: CPU threads; results may differ between thread counts, never between processes.
        sampler: for methods that draw latents.
        categories: the category of each harmful prompt; all ``all`` if not given.
        lookalikes: those of ``keep`` that lie close to a concept, if they are known; methods may
            draw them more often than the others.

    Raises:
        UserError: nothing to erase, or harmful prompts, anchors and categories of different
            number.
    """

    concepts: list[str]
    harmful: list[str]
    anchors: list[str]
    keep: list[str]
    seed: int
    threads: int
    sampler: Sampler
    lookalikes: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.harmful:
            raise UserError("alignment needs prompts of kind 'harmful'; the training set has none")
        if len(self.anchors) != len(self.harmful):
            raise UserError(
                f"alignment got {len(self.harmful)} harmful prompts but {len(self.anchors)} "
                "anchors; give one anchor (it may be empty) per harmful prompt"
            )
        if not self.categories:
            object.__setattr__(self, "categories", ["all"] * len(self.harmful))
        if len(self.categories) != len(self.harmful):
            raise UserError(
                f"alignment got {len(self.harmful)} harmful prompts but {len(self.categories)} "
                "categories; give one category per harmful prompt, or none at all"
            )

    @property
    def prompts_digest(self) -> str:
        """Digest of every prompt, in order."""
        return digest(
            [self.concepts, self.harmful, self.anchors, self.keep, self.lookalikes, self.categories]
        )


@dataclass(frozen=True)
class Progress:
    """State of a running training, as handed to a ``report`` callback.

    Attributes:
        peak_memory: bytes; of the accelerator if the pipeline is on one, else of the process.
    """

    step: int
    steps: int
    loss: float
    steps_per_second: float
    peak_memory: int


Report = Callable[[Progress], None]


def no_report(_: Progress) -> None:
    """Ignores progress."""
