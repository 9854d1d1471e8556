"""Nodes that make made-up units, and nodes that do not what they should.

Orders name data sets that there are not: ``spec`` says how long to sleep or compute.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.node import Node, fingerprint
from spqr_checks.runtime.engines.payloads import Payload
from spqr_checks.runtime.orders import Order


def unit(name: str, seconds: float = 0.0, needs: tuple[Unit, ...] = (), state: str = "") -> Unit:
    """Sleeps, or takes as many seconds of a processor if the name says so."""

    def make(folder: Path) -> None:
        clock = time.thread_time if "computes" in name else time.monotonic
        end = clock() + seconds
        while clock() < end:
            if "computes" not in name:
                time.sleep(0.01)
        if "fails" in name:
            raise ValueError("broken on purpose")
        (folder / "value.json").write_text(f'"{name}"')

    spec = f"{name}|{seconds}|{state}|" + ",".join(need.order.spec for need in needs if need.order)
    order = Order("data", spec=spec.replace(",", ";"))
    return Unit("things", {"name": name}, name, make, needs, False, state=state, order=order)


class MadeUp(Node):
    """Makes the units above; notes what it was asked for, and where it keeps what it made."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told)
        if log := told.get("log"):
            with Path(f"{log}-folders").open("a") as file:
                file.write(f"{self._root}\n")

    def describe(self) -> dict[str, Any]:
        # without loading torch, which takes seconds in each process
        return {"fingerprint": fingerprint(), "processor": "made up"}

    def unit(self, order: str) -> Unit:
        name, seconds, state, rest = Order.from_json(order).spec.split("|", 3)
        needs = (unit(rest.split("|")[0]),) if rest else ()
        return unit(name, float(seconds), needs, state)

    def engine(self, unit: Unit) -> Path:
        for need in unit.needs:
            assert self.store.path(need.kind, need.recipe) is not None, need.label
        if log := self._told.get("log"):
            with Path(log).open("a") as file:
                file.write(f"{unit.label}\n")
        made = self.store.build(unit.kind, unit.recipe, unit.make)
        assert made is not None
        return made


class Damaging(MadeUp):
    """The first to start sends other bytes than it made."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told)
        try:
            os.close(os.open(told["mark"], os.O_CREAT | os.O_EXCL))
            self._bad = True
        except FileExistsError:
            self._bad = False

    def _sent(self, payload: Payload) -> Payload:
        if self._bad:
            content = bytearray(payload["value.json"])
            content[1] ^= 1
            return payload | {"value.json": bytes(content)}
        return payload


class Older(MadeUp):
    """The first to start has another torch."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told)
        try:
            os.close(os.open(told["mark"], os.O_CREAT | os.O_EXCL))
            self._old = True
        except FileExistsError:
            self._old = told.get("all", False)

    def describe(self) -> dict[str, Any]:
        found = super().describe()
        found["fingerprint"]["torch"] = "1.0" if self._old else found["fingerprint"]["torch"]
        return found


class Mortal(MadeUp):
    """Dies after every unit."""

    def engine(self, unit: Unit) -> Path:
        made = super().engine(unit)
        threading.Timer(0.1, os._exit, [1]).start()
        return made


class Unlike(MadeUp):
    """The first to start has another processor, and is up before the others."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told)
        try:
            os.close(os.open(told["mark"], os.O_CREAT | os.O_EXCL))
            self._first = True
        except FileExistsError:
            self._first = False

    def describe(self) -> dict[str, Any]:
        time.sleep(0 if self._first else 1.5)
        return super().describe() | ({"processor": "of its own"} if self._first else {})
