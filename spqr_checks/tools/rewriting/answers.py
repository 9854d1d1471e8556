"""Reading of a language model's answers: one line of JSON, or no answer at all."""

from __future__ import annotations

import json
from typing import Any

from spqr_checks.prompts.text import is_blank, one_line

FIELD = "prompt"


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
