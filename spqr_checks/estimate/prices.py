"""What a piece of work costs, by what earlier ones took. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from spqr_checks.store.timings import Timing, Work


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds: at best, expected and at worst."""

    fastest: float
    expected: float
    slowest: float


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
        self._known: dict[Work, Price | None] = {}

    def of(self, work: Work) -> Price | None:
        """The price of a piece of work; None if nothing like it was ever done."""
        if work not in self._known:
            self._known[work] = self._price(work)
        return self._known[work]

    def _price(self, work: Work) -> Price | None:
        alike = self._timings.get((work.name, work.by), [])
        own = [timing for timing in alike if timing.base == work.base]
        seconds = [_scaled(timing, work) for timing in own or alike]
        if not seconds:
            return None
        span = Span(min(seconds), median(seconds), max(seconds))
        return Price(span, len(seconds), bool(own))


def _scaled(timing: Timing, work: Work) -> float:
    if timing.size is None or work.size is None:
        return timing.seconds
    return timing.seconds * work.size / timing.size
