"""What a run still needs, and which of it is made next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from spqr_checks.runtime.engines import Unit


class Queue:
    """Units of a run, by state, in the order in which they are needed.

    Args:
        units: all of them; asked for with the first look.
        there: whether one has been made, by whomever; it is then forgotten.
    """

    def __init__(
        self, units: Callable[[], Iterable[Unit]], there: Callable[[Unit], object]
    ) -> None:
        self._units, self._there = units, there
        self._by_state: dict[str, list[Unit]] | None = None

    def after(
        self, state: str, wanted: Sequence[Unit], can_begin: Callable[[Unit], bool]
    ) -> Iterator[Unit]:
        """Units that can be begun, best first. To be asked anew once one is made.

        Those of the state come before others, and in each case the wanted ones before those that
        will be needed.
        """
        for same in (True, False):
            yield from (
                unit for unit in wanted if (unit.state == state) is same and can_begin(unit)
            )
            for other in list(self._states()):
                if (other == state) is same:
                    yield from filter(can_begin, self._missing(other))

    def _states(self) -> dict[str, list[Unit]]:
        if self._by_state is None:
            self._by_state = {}
            for unit in self._units():
                self._by_state.setdefault(unit.state, []).append(unit)
        return self._by_state

    def _missing(self, state: str) -> Iterator[Unit]:
        units = self._states()[state]
        for unit in list(units):
            if self._there(unit):
                units.remove(unit)
            else:
                yield unit
