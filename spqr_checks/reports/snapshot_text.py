"""A scorecard as the text of a snapshot, TOML with a line for each cell, and what sets two apart.

It holds no more digits than the intervals support. Snapshots are compared by verdicts and
intervals, not by letters.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, NamedTuple

from spqr_checks.errors import UserError
from spqr_checks.hashing import digest
from spqr_checks.matrix import ADAPTED, AFTER_TUNING, UNDER_ATTACK
from spqr_checks.reports.text import one_line
from spqr_checks.reports.toml import line
from spqr_checks.scoring.cell_result import CellResult
from spqr_checks.scoring.scorecard import Scorecard

VERSION = 1
Interval = tuple[float, float]
_PASSING = frozenset({"name", "code", "versions", "device", "dtype"})
"""Keys of a description that change while base and judge stay what they are."""
_FINEST = Decimal("0.000001")
"""The last digit of a scorecard."""
_UNSUPPORTED = Decimal("0.001")
"""The last digit where there is no interval to go by."""
_HEAD = ("gate", "protocol", "base", "judges")


def snapshot_text(card: Scorecard) -> str:
    """The text of a complete scorecard.

    Raises:
        UserError: a run that is not complete: it has no number, and no snapshot either.
    """
    if not card.complete:
        raise UserError(
            f"the run is incomplete, {len(card.missing)} cells are missing: no snapshot.\n"
            "Run spqr run again; it goes on where it stopped."
        )
    name = one_line(str(card.base.get("name", "")))
    head = [
        line("version", VERSION),
        line("gate", "passed" if card.gate.passed else "failed"),
        line("protocol", card.protocol),
        f"{line('base', _fingerprint(card.base))}  # {name}",
        line("judges", [_fingerprint(judge) for judge in card.judges]),
    ]
    axes = [*card.axes.items(), (AFTER_TUNING, card.after_tuning)]
    axes += [] if card.adapted is None else [(ADAPTED, card.adapted)]
    if card.attacked is not None:
        axes += zip(UNDER_ATTACK, card.attacked.lines, strict=True)
    scores = [
        line("SPQR", _score(card.spqr, card.spqr_raw, card.spqr_interval)),
        *(line(name, _score(axis.score, axis.raw, axis.interval)) for name, axis in axes),
    ]
    cells = [line(result.cell.id, _cell(result)) for result in card.cells]
    return "\n".join([*head, "", "[scores]", *scores, "", "[cells]", *cells, ""])


def _score(score: float | None, raw: float | None, interval: Interval | None) -> dict[str, Any]:
    """The value, to which the interval belongs, and the raw score beside it."""
    return _measured(score, interval) | {"raw": None if raw is None else rounded(raw, interval)}


def _cell(result: CellResult) -> dict[str, Any]:
    measured = _measured(result.value, result.interval)
    return {"verdict": result.verdict, **measured, "n": result.n}


def _measured(value: float | None, interval: Interval | None) -> dict[str, Any]:
    """What is None is left out of the line."""
    return {
        "value": None if value is None else rounded(value, interval),
        "interval": None if interval is None else widened(interval),
    }


def _fingerprint(description: Any) -> str:
    """Digest of what decides a measurement: weights and thresholds, not versions or devices."""

    def lasting(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: lasting(item) for key, item in value.items() if key not in _PASSING}
        return [lasting(item) for item in value] if isinstance(value, list) else value

    return digest(lasting(description))


def last_digit(interval: Interval | None) -> Decimal:
    """The decimal place that an interval supports: that of the first digit of its width.

    An interval from 0.03 to 0.21 is 0.18 wide and supports tenths; one from 0.937 to 0.955
    supports hundredths.
    """
    if interval is None:
        return _UNSUPPORTED
    low, high = map(exact, interval)
    width = abs(high - low)
    return max(_FINEST, Decimal(1).scaleb(width.adjusted())) if width else _FINEST


def rounded(value: float, interval: Interval | None) -> Decimal:
    """The value to the last digit of its interval; to three decimals where there is none."""
    return exact(value).quantize(last_digit(interval)) + 0  # no negative zero


def widened(interval: Interval) -> tuple[Decimal, Decimal]:
    """The interval to one place more than its value, rounded outwards: it never gets narrower."""
    digit = max(_FINEST, last_digit(interval).scaleb(-1))
    low, high = map(exact, interval)
    return low.quantize(digit, ROUND_FLOOR) + 0, high.quantize(digit, ROUND_CEILING) + 0


def exact(value: float) -> Decimal:
    """The number as a scorecard holds it, to six decimals. ValueError unless it is finite."""
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be rounded")
    return Decimal(str(round(value, 6)))


class _Entry(NamedTuple):
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


class _Snapshot(NamedTuple):
    head: dict[str, Any]
    scores: dict[str, _Entry]
    cells: dict[str, _Entry]


def differences(new: str, old: str) -> list[str]:
    """What sets a new snapshot apart from the old one, a line each; empty where they match.

    They match where gate, protocol, base, judges, cells and verdicts are equal and the interval
    of every value overlaps its old one. A cell's value without an interval must be equal; a score
    (SPQR or an axis) without an interval is left to its cells. ``n`` may depend on chance, and
    ``raw`` follows from the cells.

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
        if (version := document["version"]) != VERSION:
            raise ValueError(f"its version is {version!r}, and this program reads {VERSION}")
        scores, cells = (
            {name: _entry(fields) for name, fields in document[table].items()}
            for table in ("scores", "cells")
        )
        return _Snapshot({key: document[key] for key in _HEAD}, scores, cells)
    except KeyError as error:
        reason = f"{error} is missing"
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        reason = str(error)
    raise UserError(
        f"the snapshot cannot be read: {reason}.\n"
        "Delete the file and write it anew with pytest --snapshot-update."
    )


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
