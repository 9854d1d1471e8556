"""What a run costs: amounts and seconds of each kind of work, and of the whole."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from statistics import median
from typing import NamedTuple

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.estimate.cost import ClearCells, Plan, Task, plan
from spqr_checks.estimate.known import KnownCells
from spqr_checks.estimate.schedule import Job, Schedule, simulate
from spqr_checks.runtime.devices import devices
from spqr_checks.store.timings import Timing, Work

Plans = tuple[Plan, Plan, Plan]
"""Where every cell is decided as early as it can be, when it is a clear case, and at the end."""


class Span(NamedTuple):
    """Seconds: at best, expected and at worst."""

    fastest: float
    expected: float
    slowest: float


NOTHING = Span(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Price:
    """Seconds of one piece of work; ``same_base`` unless only other bases' timings are known."""

    seconds: Span
    timings: int
    same_base: bool


class Prices:
    """Prices by kind of work: the median of earlier ones, the fastest and the slowest.

    Timings of the same base count; those of other bases only where there are none. Where both
    sizes are known, time is taken to grow in proportion to them.
    """

    def __init__(self, timings: Iterable[Timing]) -> None:
        self._timings: dict[tuple[str, str], list[Timing]] = defaultdict(list)
        for timing in timings:
            self._timings[timing.name, timing.by].append(timing)
        self.of = cache(self._price)

    def _price(self, work: Work) -> Price | None:
        """The price of a piece of work; None if nothing like it was ever done."""
        alike = self._timings.get((work.name, work.by), [])
        own = [timing for timing in alike if timing.base == work.base]
        seconds = [
            took.seconds * work.size / took.size if work.size and took.size else took.seconds
            for took in own or alike
        ]
        if not seconds:
            return None
        span = Span(min(seconds), median(seconds), max(seconds))
        return Price(span, len(seconds), bool(own))

    def seconds(self, tasks: Iterable[Task], case: int) -> float:
        """Of all tasks that have a price, in one of the cases of a `Span`."""
        known = (self.of(task.work) for task in tasks)
        return sum(price.seconds[case] for price in known if price is not None)


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
    """The whole run.

    Attributes:
        work: what all processes do together to make what is missing.
        beside: the rest of the run's time: starting, reading, scoring.
        wall: the time that the run takes.
    """

    rows: tuple[Row, ...]
    work: Span
    beside: Span
    wall: Span

    @property
    def unknown(self) -> tuple[str, ...]:
        """Kinds of work whose time is not known; with any, all times are lower bounds."""
        return tuple(row.name for row in self.rows if row.unknown)


def plans(session: MeasuringSession) -> Plans:
    """The three plans of a run; equal where the number of images is fixed. Errors as `plan`."""
    cells, known = ClearCells(session.run), KnownCells(session)
    if session.run.settings.mode == "fixed":
        return (plan(session, cells.least, known),) * 3
    least, expected, most = (
        plan(session, look, known) for look in (cells.least, cells.expected, cells.most)
    )
    return least, expected, most


def estimate(
    session: MeasuringSession,
    three: Plans,
    prices: Prices,
    workers: int,
    beside: Span = NOTHING,
) -> Estimate:
    """Adds up. Each device has one owner at a time, however many workers there are.

    Args:
        beside: what the run takes besides what it makes (see `overhead`).
    """
    rows = tuple(_row(name, three, prices) for name in three[-1].names)
    lanes = min(workers, len(devices(session.run.settings, workers)))
    fastest, expected, slowest = (
        wall_time(
            {key: task.needs for key, task in of.missing.items()},
            {key: prices.seconds([task], case) for key, task in of.missing.items()},
            lanes,
        )
        for case, of in enumerate(three)
    )
    # with other times tasks are shared out otherwise, which can take longer with shorter ones
    making = Span(min(fastest, expected), expected, max(expected, slowest))
    wall = Span(*map(sum, zip(making, beside, strict=True)))
    work = Span(*(sum(row.seconds[case] for row in rows) for case in range(3)))
    return Estimate(rows, work, beside, wall)


def scheduled(session: MeasuringSession, of: Plan, prices: Prices, devices: int) -> Schedule:
    """The plan's missing artefacts on so many devices, each as long as is expected of it.

    What has no price takes no time; sizes are those of the store's entries of the same kind.
    """
    usage = session.run.store.usage()
    sizes = {kind: total // entries for kind, (entries, total) in usage.items() if entries}
    jobs = {
        key: Job(prices.seconds([task], 1), task.needs, task.state, sizes.get(task.kind, 0))
        for key, task in of.missing.items()
    }
    return simulate(jobs, devices)


def unpriced(of: Plan, prices: Prices) -> list[Task]:
    """One missing task of every kind that has no price, in the order of the rows."""
    found = {
        (task.work.name, task.work.by): task
        for task in of.missing.values()
        if prices.of(task.work) is None
    }
    return sorted(found.values(), key=lambda task: of.names.index(task.work.name))


def _row(name: str, three: Plans, prices: Prices) -> Row:
    tasks = [[task for task in of.missing.values() if task.work.name == name] for of in three]
    known = [price for task in tasks[-1] if (price := prices.of(task.work)) is not None]
    least, expected, most = (of.to_make[name] for of in three)
    return Row(
        name,
        three[-1].there[name],
        (least, expected, most),
        Span(*(prices.seconds(each, case) for case, each in enumerate(tasks))),
        len(known) < len(tasks[-1]),
        max((price.timings for price in known), default=0),
        all(price.same_base for price in known),
    )


def wall_time(
    needs: Mapping[str, Sequence[str]], seconds: Mapping[str, float], workers: int
) -> float:
    """Time until the last task is done (list scheduling, Graham 1966).

    Whoever is free takes the first task, in the order of ``needs``, whose own needs are done. That
    is never shorter than the longest chain of needs, nor than all work divided by the workers, and
    never longer than both together.

    Args:
        needs: task → tasks that must be done before it; each is a task too.
        seconds: of each task; without an entry none.
        workers: how many tasks can be in the works at once.

    Raises:
        ValueError: fewer than one worker, an unknown need, or needs in a cycle.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers do nothing")
    names = list(needs)
    order = {task: position for position, task in enumerate(names)}
    if not all(need in order for before in needs.values() for need in before):
        raise ValueError("a task needs one that is not there")
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    ready: list[int] = []
    working: list[tuple[float, int]] = []
    now = 0.0
    while sorter.is_active():
        for task in sorter.get_ready():
            heapq.heappush(ready, order[task])
        while ready and len(working) < workers:
            position = heapq.heappop(ready)
            heapq.heappush(working, (now + seconds.get(names[position], 0.0), position))
        now, position = heapq.heappop(working)
        sorter.done(names[position])
    return now
