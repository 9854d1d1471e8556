"""Reading JSON of a known shape: every field taken once, of the right type, nothing left over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class MalformedError(ValueError):
    """JSON that does not have the shape it should; says where."""


class Fields:
    """The fields of one JSON object; each is asked for once and removed.

    Every method raises MalformedError, with the place in it, for a field that is absent or of
    another type.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise MalformedError(f"{where} is not an object")
        self._fields: dict[str, Any] = dict(value)
        self._where = where

    def has(self, name: str) -> bool:
        """Whether a field is there that need not be."""
        return name in self._fields

    def any(self, name: str) -> Any:
        try:
            return self._fields.pop(name)
        except KeyError:
            raise MalformedError(f"{self._where} has no field {name!r}") from None

    def text(self, name: str) -> str:
        return self._typed(name, self.any(name), str, "text")

    def optional_text(self, name: str) -> str | None:
        value = self.any(name)
        return None if value is None else self._typed(name, value, str, "text")

    def choice(self, name: str, options: Sequence[T]) -> T:
        value = self.any(name)
        for option in options:
            if value == option and isinstance(value, str):
                return option
        raise self._wrong(name, "one of " + ", ".join(map(str, options)))

    def flag(self, name: str) -> bool:
        return self._typed(name, self.any(name), bool, "true or false")

    def integer(self, name: str) -> int:
        value = self.any(name)
        if isinstance(value, bool):
            raise self._wrong(name, "a whole number")
        return self._typed(name, value, int, "a whole number")

    def number(self, name: str) -> float:
        return self._number(name, self.any(name))

    def optional_number(self, name: str) -> float | None:
        value = self.any(name)
        return None if value is None else self._number(name, value)

    def optional_pair(self, name: str) -> tuple[float, float] | None:
        value = self.any(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2:
            raise self._wrong(name, "a pair of numbers")
        return self._number(name, value[0]), self._number(name, value[1])

    def mapping(self, name: str) -> dict[str, Any]:
        return self._typed(name, self.any(name), dict, "an object")

    def list(self, name: str) -> list[Any]:
        return self._typed(name, self.any(name), list, "a list")

    def each(self, name: str, read: Callable[[Fields], T]) -> tuple[T, ...]:
        """A list of objects, each read by ``read``."""
        return tuple(
            _read_whole(value, f"{self._where}, {name}[{index}]", read)
            for index, value in enumerate(self.list(name))
        )

    def by_name(self, name: str, read: Callable[[Fields], T]) -> dict[str, T]:
        """An object of objects, each read by ``read``."""
        return {
            key: _read_whole(value, f"{self._where}, {name}.{key}", read)
            for key, value in self.mapping(name).items()
        }

    def one(self, name: str, read: Callable[[Fields], T]) -> T:
        """One object, read by ``read``."""
        return _read_whole(self.any(name), f"{self._where}, {name}", read)

    def optional(self, name: str, read: Callable[[Fields], T]) -> T | None:
        """One object or null."""
        value = self.any(name)
        return None if value is None else _read_whole(value, f"{self._where}, {name}", read)

    def finish(self) -> None:
        """Refuses fields that nobody asked for."""
        if self._fields:
            raise MalformedError(f"{self._where} has an unknown field {min(self._fields)!r}")

    def _number(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(name, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._wrong(name, "a finite number")
        return number

    def _typed(self, name: str, value: Any, kind: type[T], what: str) -> T:
        if not isinstance(value, kind):
            raise self._wrong(name, what)
        return value

    def _wrong(self, name: str, what: str) -> MalformedError:
        return MalformedError(f"{self._where}: field {name!r} is not {what}")


def read_object(value: Mapping[str, Any] | object, where: str, read: Callable[[Fields], T]) -> T:
    """Reads one object with ``read`` and refuses fields that it did not ask for."""
    return _read_whole(value, where, read)


def _read_whole(value: object, where: str, read: Callable[[Fields], T]) -> T:
    fields = Fields(value, where)
    result = read(fields)
    fields.finish()
    return result
