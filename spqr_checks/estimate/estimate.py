"""What a run costs: amounts and seconds of each kind of work, and of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.estimate.clear import ClearCells
from spqr_checks.estimate.cost import Plan, Task, plan
from spqr_checks.estimate.prices import Price, Prices, Span
from spqr_checks.estimate.schedule import wall_time

Plans = tuple[Plan, Plan, Plan]
"""Where every cell is decided as early as it can be, when it is a clear case, and at the end."""


def plans(session: MeasuringSession) -> Plans:
    """The three plans of a run; equal where the number of images is fixed. Errors as `plan`."""
    cells = ClearCells(session.run)
    if session.run.settings.mode == "fixed":
        return (plan(session, cells.least),) * 3
    return plan(session, cells.least), plan(session, cells.expected), plan(session, cells.most)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of work.

    Attributes:
        to_make: missing at least, expected and at most.
        seconds: of what has a price.
        unknown: some of it has no price, so that it takes longer than ``seconds`` say.
        timings: how many earlier ones the price rests on.
        same_base: whether these were of the same base.
    """

    name: str
    there: int
    to_make: tuple[int, int, int]
    seconds: Span
    unknown: bool
    timings: int
    same_base: bool


@dataclass(frozen=True)
class Estimate:
    """The whole run: ``work`` is what all processes do together, ``wall`` the time it takes."""

    rows: tuple[Row, ...]
    work: Span
    wall: Span

    @property
    def unknown(self) -> tuple[str, ...]:
        """Kinds of work whose time is not known; with any, all times are lower bounds."""
        return tuple(row.name for row in self.rows if row.unknown)


def estimate(session: MeasuringSession, three: Plans, prices: Prices, workers: int) -> Estimate:
    """Adds up. On anything but the CPU, processes take turns (see `LocalEngine`)."""
    least, expected, most = three
    rows = tuple(_row(name, three, prices) for name in most.names)
    lanes = workers if session.run.settings.device == "cpu" else 1

    def wall(of: Plan, which: str) -> float:
        needs = {key: task.needs for key, task in of.missing.items()}
        seconds = {key: _seconds(task, prices, which) for key, task in of.missing.items()}
        return wall_time(needs, seconds, lanes)

    return Estimate(
        rows,
        Span(
            sum(row.seconds.fastest for row in rows),
            sum(row.seconds.expected for row in rows),
            sum(row.seconds.slowest for row in rows),
        ),
        _ordered(wall(least, "fastest"), wall(expected, "expected"), wall(most, "slowest")),
    )


def _ordered(fastest: float, expected: float, slowest: float) -> Span:
    """With other times tasks are shared out otherwise, which can take longer with shorter ones."""
    return Span(min(fastest, expected), expected, max(expected, slowest))


def unpriced(of: Plan, prices: Prices) -> list[Task]:
    """One missing task of every kind that has no price, in the order of the rows."""
    found = {
        (task.work.name, task.work.by): task
        for task in of.missing.values()
        if prices.of(task.work) is None
    }
    return sorted(found.values(), key=lambda task: of.names.index(task.work.name))


def _row(name: str, three: Plans, prices: Prices) -> Row:
    least, expected, most = (_tasks(name, each) for each in three)
    known = [price for task in most if (price := prices.of(task.work)) is not None]
    return Row(
        name,
        three[2].there[name],
        (_amount(least), _amount(expected), _amount(most)),
        Span(
            sum(_seconds(task, prices, "fastest") for task in least),
            sum(_seconds(task, prices, "expected") for task in expected),
            sum(_seconds(task, prices, "slowest") for task in most),
        ),
        len(known) < len(most),
        max((price.timings for price in known), default=0),
        all(price.same_base for price in known),
    )


def _tasks(name: str, of: Plan) -> list[Task]:
    return [task for task in of.missing.values() if task.work.name == name]


def _amount(tasks: Sequence[Task]) -> int:
    return sum(task.amount for task in tasks)


def _seconds(task: Task, prices: Prices, which: str) -> float:
    price: Price | None = prices.of(task.work)
    return 0.0 if price is None else float(getattr(price.seconds, which))
