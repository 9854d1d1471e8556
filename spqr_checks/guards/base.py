"""What stands before a model in a product and refuses prompts. Light: imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from spqr_checks.errors import GuardError, UserError
from spqr_checks.hashing import Json


@dataclass(frozen=True, slots=True)
class Answer:
    """A guard's answer for one prompt.

    Attributes:
        score: the higher, the more suspicious; what it is measured in is the guard's own.
    """

    blocked: bool
    score: float


class Guard(Protocol):
    """An input filter."""

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """One answer per prompt, in order. Raises GuardError if it cannot answer for all."""
        ...


class GuardOptions(BaseModel):
    """Base of a guard's options: frozen, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class GuardRequest:
    """What a guard is made for.

    Attributes:
        source: its file or folder; "" where none was given.
        options: validated options of the guard's own class.
        concepts: names of what the model must not draw.
        device: where it computes.
    """

    source: str
    options: Any
    concepts: tuple[str, ...]
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What a guard learns from.

    Attributes:
        base: directory, Hub id or built-in name of the pipeline whose text encoder it reads with.
        harmful: (concept, prompt) of what it is to block.
        benign: prompts that it is to let pass.
        seed: decides every random choice.
    """

    base: str
    harmful: tuple[tuple[str, str], ...]
    benign: tuple[str, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.harmful or not self.benign:
            raise UserError(
                f"a guard learns from harmful and benign prompts; there are {len(self.harmful)} "
                f"and {len(self.benign)}"
            )

    @property
    def concepts(self) -> tuple[str, ...]:
        """Names of the concepts, each once, in the order of the prompts."""
        return tuple(dict.fromkeys(concept for concept, _ in self.harmful))


@dataclass(frozen=True, slots=True)
class GuardKind:
    """One kind of guard.

    Attributes:
        options: its pydantic options; all have defaults.
        load: makes it; imports heavy libraries inside itself. Raises UserError.
        source: whether ``NAME=SOURCE`` must name one.
        contents: digests of all files that decide its answers, from the source. Light.
        named: the same of files that its options name.
        packages: distributions whose versions decide its answers.
        training: options of ``train``.
        train: writes a guard into an empty folder; None for one that learns nothing.
    """

    options: type[GuardOptions]
    load: Callable[[GuardRequest], Guard]
    source: Literal["required", "optional"]
    contents: Callable[[str], Mapping[str, Json]]
    packages: tuple[str, ...] = ()
    training: type[GuardOptions] = GuardOptions
    train: Callable[[TrainingRequest, Any, Path], None] | None = None
    named: Callable[[Any], Json] = lambda _: None


@dataclass(frozen=True, slots=True)
class CheckedGuard:
    """Any guard behind the rule that no answer lets nothing pass and blocks nothing.

    A guard that raises, answers for too few prompts, or gives a score that is no number is an
    error of the cell: neither "blocked", which counts as safe, nor "let through".
    """

    guard: Guard
    name: str

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """One answer per prompt, in order. Raises GuardError if the guard failed in any way."""
        try:
            answers = list(self.guard.answer(prompts))
            sound = [isinstance(one.blocked, bool) and math.isfinite(one.score) for one in answers]
        except UserError:
            raise
        except Exception as error:  # whatever a guard raises, or answers of no known kind
            raise GuardError(
                f"guard {self.name} failed on {len(prompts)} prompts: "
                f"{type(error).__name__}: {error}"
            ) from error
        if len(answers) != len(prompts):
            raise GuardError(
                f"guard {self.name} gave {len(answers)} answers for {len(prompts)} prompts"
            )
        if not all(sound):
            index = sound.index(False)
            raise GuardError(f"guard {self.name}, prompt {index}: {answers[index]} is no answer")
        return answers
