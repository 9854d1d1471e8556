"""Where two JSON values differ, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WIDTH = 60


def differences(
    what: str, one: Any, other: Any, places: tuple[str, str] = ("one", "the other")
) -> Iterator[str]:
    """Differences of two JSON values, the deepest place named.

    Args:
        what: what the values are; begins each sentence.
        places: where the values are, for the end of the sentence.

    Yields:
        Sentences such as ``setting images is 24 in one and 48 in the other``, in the order of
        sorted keys.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted(one.keys() | other.keys()):
            joint = " " if what == "setting" else "."
            yield from differences(f"{what}{joint}{key}", one.get(key), other.get(key), places)
    elif _is_list(one) and _is_list(other) and len(one) == len(other):
        for index, (mine, its) in enumerate(zip(one, other, strict=True)):
            yield from differences(f"{what}[{index}]", mine, its, places)
    elif one != other:
        yield f"{what} is {_short(one)} in {places[0]} and {_short(other)} in {places[1]}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _short(value: Any) -> str:
    text = "not there" if value is None else repr(value)
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
