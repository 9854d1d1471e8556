"""What sets the snapshots of two scorecards apart: verdicts and intervals, not letters."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.reports.snapshot_text import VERSION

_HEAD = ("gate", "protocol", "base", "judges")
_ADVICE = "Delete the file and write it anew with pytest --snapshot-update."


@dataclass(frozen=True, slots=True)
class _Entry:
    """A cell or a score as a snapshot holds it."""

    verdict: str
    value: Decimal | None
    interval: tuple[Decimal, Decimal] | None

    def __str__(self) -> str:
        value = "no value" if self.value is None else f"{self.value:f}"
        if self.interval is not None:
            value += f" [{self.interval[0]:f}, {self.interval[1]:f}]"
        return f"{self.verdict} {value}".lstrip()

    def agrees(self, other: _Entry) -> bool:
        if self.interval is None or other.interval is None:
            return self.interval == other.interval and self.value == other.value
        return self.interval[0] <= other.interval[1] and other.interval[0] <= self.interval[1]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    head: dict[str, Any]
    scores: dict[str, _Entry]
    cells: dict[str, _Entry]


def differences(new: str, old: str) -> list[str]:
    """What sets a new snapshot apart from the old one, a line each; empty where they match.

    They match where gate, protocol, base, judges, cells and verdicts are equal and the interval
    of every value overlaps its old one. A cell's value without an interval must be equal; a score
    (SPQR or an axis) without an interval is left to its cells. ``n`` may depend on chance, and
    ``score`` follows from values and verdicts.

    Raises:
        UserError: text that is no snapshot of this version.
    """
    return list(_differences(_read(new), _read(old)))


def _differences(new: _Snapshot, old: _Snapshot) -> Iterator[str]:
    for key in _HEAD:
        if new.head[key] != old.head[key]:
            yield f"{key}: was {old.head[key]}, is {new.head[key]}"
    for name in {**old.scores, **new.scores}:
        mine, its = new.scores.get(name), old.scores.get(name)
        if not (mine and its and _left_to_cells(mine, its)):
            yield from _unlike(name, mine, its)
    for name in {**old.cells, **new.cells}:
        yield from _unlike(name, new.cells.get(name), old.cells.get(name))


def _unlike(name: str, new: _Entry | None, old: _Entry | None) -> Iterator[str]:
    if new is None or old is None:
        yield f"{name}: is {'new' if old is None else 'gone'}"
    elif new.verdict != old.verdict or not new.agrees(old):
        yield f"{name}: was {old}, is {new}"


def _left_to_cells(*scores: _Entry) -> bool:
    """Whether all have a value, but not all an interval that a difference could be judged by."""
    return all(s.value is not None for s in scores) and any(s.interval is None for s in scores)


def _read(text: str) -> _Snapshot:
    try:
        document = tomllib.loads(text, parse_float=Decimal)
        version = document["version"]
        if version != VERSION:
            raise ValueError(f"its version is {version!r}, and this program reads {VERSION}")
        return _Snapshot(
            {key: document[key] for key in _HEAD},
            {name: _entry(fields) for name, fields in document["scores"].items()},
            {name: _entry(fields) for name, fields in document["cells"].items()},
        )
    except KeyError as error:
        reason = f"{error} is missing"
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        reason = str(error)
    raise UserError(f"the snapshot cannot be read: {reason}.\n{_ADVICE}")


def _entry(fields: Mapping[str, Any]) -> _Entry:
    value, bounds = fields.get("value"), fields.get("interval")
    interval = None
    if bounds is not None:
        low, high = map(_number, bounds)
        interval = (low, high)
    verdict = str(fields.get("verdict", ""))
    return _Entry(verdict, None if value is None else _number(value), interval)


def _number(value: Any) -> Decimal:
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        number = Decimal(value)
        if number.is_finite():
            return number
    raise ValueError(f"{value!r} is not a number")
