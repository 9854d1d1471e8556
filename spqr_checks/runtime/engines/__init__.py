"""Engines make units of work, artefacts of the store. Each module here is one way to do it.

A process that needs an artefact asks its engine for the unit, and reads the files when it has
them. What a unit is made of are closures, which belong to one process; ``Unit.order`` says the same
in words that every process of the run understands (`Units.ordered` makes the unit of them), and
``Unit.state`` which weights it computes with, so that units of equal state can be made one after
another. Whatever makes a unit, and in whatever order, its bytes follow from its recipe alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from spqr_checks.runtime.orders import Order
from spqr_checks.store.timings import Work


@dataclass(frozen=True, eq=False)
class Unit:
    """One artefact, addressed by ``kind`` and ``recipe``.

    Attributes:
        label: what people see while it is built.
        needs: artefacts that must exist first.
        make: writes the artefact's files into an empty folder; imports heavy libraries itself.
        heavy: whether it computes much (generation, training, judging), and so occupies a device.
        device: which one; None is that of the run. What computes on the CPU waits for no other.
        work: what its cost depends on; asked for once it is made, or to estimate a run.
        state: name of the model state that it loads or looks at; empty for none.
        order: the same unit for another process of the run; None where only this one can make it.
    """

    kind: str
    recipe: dict[str, Any]
    label: str
    make: Callable[[Path], None]
    needs: tuple[Unit, ...] = field(default=())
    heavy: bool = True
    device: str | None = None
    work: Callable[[], Work] | None = None
    state: str = ""
    order: Order | None = None


class Engine(Protocol):
    """What measuring asks of an engine.

    Attributes:
        deadline: time (``time.time()``) after which nothing new is begun; None: no such time.
    """

    deadline: float | None

    def require(self, unit: Unit) -> Path:
        """The artefact's folder, made if it is missing, by whoever makes units of this run.

        Never waits for something that nobody is making: what cannot be made is an error here.

        Raises:
            BudgetError: it is missing, and the deadline is over.
        """
        ...

    def at_work(self) -> AbstractContextManager[None]:
        """The length of one test that measures. What it took for itself ends with it."""
        ...

    def claim(self) -> None:
        """Waits until this process may load a pipeline of its own; it may until the test ends."""
        ...
