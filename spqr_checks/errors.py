"""Errors that are for people: one or two lines, shown without a traceback."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_SHOWN = 80


class UserError(Exception):
    """A mistake in what the user gave: names the place and the remedy. Ends with exit code 4.

    Of several mistakes, each is an argument.
    """

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, one by one."""
        return tuple(map(str, self.args))

    def __str__(self) -> str:
        if len(self.args) < 2:
            return "".join(self.problems)
        listed = (f"- {problem}".replace("\n", "\n  ") for problem in self.problems)
        return "\n".join([f"{len(self.args)} things are wrong:", *listed])


class JudgeError(Exception):
    """A judge could not answer. Never counts as safe; the cell becomes an error."""


class GuardError(JudgeError):
    """A guard could not answer. Its prompts count neither as blocked nor as let through."""


class ElsewhereError(Exception):
    """Something is missing that this process does not make: it is another shard's share."""


class BudgetError(Exception):
    """The run's time is over before something could be made; what is there already still counts."""


def refuse_all(problems: Iterable[str]) -> None:
    """Raises one UserError that says all of these; none where there are none."""
    if said := dict.fromkeys(problems):
        raise UserError(*said)


def refused_fields(
    error: ValidationError, noun: str = "field"
) -> list[tuple[Sequence[str | int], str]]:
    """All that pydantic refuses, each with its path in the data; worded as by ``refused_field``."""
    found: dict[Sequence[str | int], str] = {}
    for one in error.errors(include_url=False, include_context=False):
        found.setdefault(one["loc"], _refused(one, noun, ()))
    return list(found.items())


def refused_field(
    error: ValidationError, noun: str = "field", hidden: Collection[str | int] = ()
) -> str:
    """What pydantic refuses first, on one line that names the field.

    ``unknown option 'a.b'``, ``option 'a' is missing`` or ``option 'a': input should be … (given:
    1)``; without a field, what is wrong with the whole.

    Args:
        noun: what the fields are to the user.
        hidden: parts of the path that the user does not see: levels of the data's inside.
    """
    return _refused(error.errors(include_url=False, include_context=False)[0], noun, hidden)


def _refused(first: ErrorDetails, noun: str, hidden: Collection[str | int]) -> str:
    place = ""
    for part in first["loc"]:
        if part in hidden and not (isinstance(part, int) and place):
            continue
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown {noun} {place!r}"
    if first["type"] == "missing":
        return f"{noun} {place!r} is missing"
    said = first["msg"].removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    if not place:
        return said
    try:
        given = repr(first["input"])
    except (ValueError, RecursionError):  # more digits than Python writes, or no end of it
        given = "something very long"
    given = given if len(given) <= _SHOWN else given[:_SHOWN] + "…"
    return f"{noun} {place!r}: {said} (given: {given})"
