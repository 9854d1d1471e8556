"""Pairs from a chat model. Light: the model is behind ``Chat``, loaded by ``chat_model``.

The published pipeline (AlignGuard, arXiv 2412.10493: a language model writes unsafe prompts for
each concept, then a safe prompt near each) does not say with which instructions; these are ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from spqr_checks.hashing import Json, digest
from spqr_checks.prompts.text import is_blank, one_line
from spqr_checks.tools.rewriting.concept import Concept
from spqr_checks.tools.rewriting.rewriter import Answer, Failed, Written

Message = dict[str, str]
"""``role`` (user or assistant: not every template knows a system role) and ``content``."""

ASK = """\
You help to make an image generator safer. It must learn which prompts ask for something that it \
is not to draw.
Write prompt number {number} that asks the image generator for the concept "{concept}" of the \
category "{category}". Name the concept plainly, in one sentence of 5 to 25 words that describes \
a picture: subject, place, style. No graphic detail, no real persons, no minors.
Language: {language}.{earlier}
Answer with one line of JSON and nothing else: {{"prompt": "..."}}"""

EARLIER = "\nWrite another one than these: {prompts}."

REWRITE = """\
You help to make an image generator safer. Rewrite the prompt below so that it no longer asks for \
the concept "{concept}" of the category "{category}", nor hints at it. Keep subject, place, style \
and wording; replace the smallest part that makes the prompt harmless.
Language: {language}. Prompt: {prompt}
Answer with one line of JSON and nothing else: {{"prompt": "..."}}"""

REMIND = """\
That could not be read ({problem}). Answer with one line of JSON and nothing else: \
{{"prompt": "..."}}"""

FIELD = "prompt"
_SHOWN_EARLIER = 8
_SHOWN_ANSWER = 200


class Chat(Protocol):
    """A chat model."""

    @property
    def recipe(self) -> dict[str, Json]:
        """Everything that decides its answers."""

    def answer(self, messages: Sequence[Message], seed: int) -> str:
        """The next message; equal arguments give equal answers."""


class LanguageModelRewriter:
    """Asks a chat model for both prompts of a pair.

    An answer that cannot be read is sent back with the reason, up to ``retries`` times.
    """

    name = "llm"

    def __init__(
        self, chat: Chat, retries: int = 2, seed: int = 0, language: str = "English"
    ) -> None:
        self._chat, self._retries, self._seed, self._language = chat, retries, seed, language

    @property
    def recipe(self) -> dict[str, Json]:
        return {
            "rewriter": self.name,
            "chat": self._chat.recipe,
            "instructions": digest([ASK, EARLIER, REWRITE, REMIND, _SHOWN_EARLIER, _SHOWN_ANSWER]),
            "retries": self._retries,
            "seed": self._seed,
            "language": self._language,
        }

    def check(self, concepts: Sequence[Concept]) -> None:
        """Any concept will do."""

    def ask(self, concept: Concept, number: int, earlier: Sequence[str]) -> Answer:
        latest = "; ".join(earlier[-_SHOWN_EARLIER:])
        task = ASK.format(
            number=number + 1,
            concept=concept.name,
            category=concept.category,
            language=self._language,
            earlier=EARLIER.format(prompts=latest) if latest else "",
        )
        return self._answer(task, ["ask", concept.name, number])

    def rewrite(self, concept: Concept, unsafe: str) -> Answer:
        task = REWRITE.format(
            concept=concept.name, category=concept.category, language=self._language, prompt=unsafe
        )
        return self._answer(task, ["rewrite", concept.name, unsafe])

    def _answer(self, task: str, about: list[Json]) -> Answer:
        messages: list[Message] = [{"role": "user", "content": task}]
        detail = ""
        for attempt in range(1, self._retries + 2):
            seed = int(digest([self._seed, *about, attempt])[:15], 16)
            answer = self._chat.answer(messages, seed)
            try:
                return Written(parse_answer(answer), attempt)
            except UnparsableError as error:
                shown, remind = answer[:_SHOWN_ANSWER], REMIND.format(problem=error)
                detail = f"{error}: {shown!r}"
            messages += [
                {"role": "assistant", "content": shown},
                {"role": "user", "content": remind},
            ]
        return Failed("unparsable", detail, self._retries + 1)


class UnparsableError(ValueError):
    """The answer is not what was asked for; the message says why."""


def parse_answer(answer: str) -> str:
    """The prompt in ``{"prompt": "…"}``.

    Nothing is guessed: text around the object, further lines, code fences, other or repeated
    fields and empty prompts are all refused, so that no half answer becomes training data.

    Raises:
        UnparsableError: for anything else.
    """
    line = answer.strip()
    if not line:
        raise UnparsableError("empty answer")
    if "\n" in line or "\r" in line:
        raise UnparsableError("more than one line")
    try:
        value = json.loads(line, object_pairs_hook=_fields)
    except json.JSONDecodeError as error:
        raise UnparsableError(f"not JSON: {error.msg}") from None
    except RecursionError:
        raise UnparsableError("not JSON: nested too deeply") from None
    if not isinstance(value, dict) or list(value) != [FIELD]:
        raise UnparsableError(f"not an object with the one field {FIELD!r}")
    prompt = value[FIELD]
    if not isinstance(prompt, str) or is_blank(prompt):
        raise UnparsableError(f"field {FIELD!r} is no text, or empty")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UnparsableError(f"field {FIELD!r} is not valid Unicode") from None
    return one_line(prompt)


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise UnparsableError("a field is given twice")
    return fields
