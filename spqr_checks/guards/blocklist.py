"""``blocklist``: refuses prompts that name a listed word or phrase.

The baseline that every published guard is compared with. Words are those of a text file, one
phrase per line (``#`` begins a comment), else the names of the run's concepts. A phrase is named by
a prompt that holds all of its words, in any order, as whole words, whatever their case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spqr_checks.errors import UserError
from spqr_checks.finetuning.concepts import names
from spqr_checks.guards.base import Answer, GuardKind, GuardOptions, GuardRequest
from spqr_checks.hashing import Json, file_digest
from spqr_checks.prompts.text import is_blank
from spqr_checks.user_files import MOST_CONFIGURATION, path_of, read_text


@dataclass(frozen=True, slots=True)
class Blocklist:
    """Scores are the number of listed phrases that a prompt names; any blocks it."""

    phrases: tuple[str, ...]

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        counts = [sum(names(prompt, phrase) for phrase in self.phrases) for prompt in prompts]
        return [Answer(count > 0, float(count)) for count in counts]


def read_phrases(source: str) -> tuple[str, ...]:
    """The phrases of a file. Raises UserError where it cannot be read or lists nothing."""
    text = read_text(path_of(source), MOST_CONFIGURATION)
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    phrases = tuple(dict.fromkeys(line for line in lines if not is_blank(line)))
    if not phrases:
        raise UserError(f"{source}: lists no phrase; write one per line")
    return phrases


def _load(request: GuardRequest) -> Blocklist:
    return Blocklist(read_phrases(request.source) if request.source else request.concepts)


def _contents(source: str) -> Mapping[str, Json]:
    if not source:
        return {}
    read_phrases(source)
    return {"file": file_digest(path_of(source))}


GUARD = GuardKind(GuardOptions, _load, "optional", _contents)
