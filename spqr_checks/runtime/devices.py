"""Which devices a run computes on, and which of them a worker may own. Light.

A device has one owner at a time (`engines.local`), so as many processes hold a pipeline as there
are devices, however many workers there are. ``cpu:0``, ``cpu:1`` … are shares of the processor that
are owned like accelerators; without further words there are as many as fit its cores, at
``threads`` each, and not more than workers.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from spqr_checks.settings import Settings


class Worker(NamedTuple):
    """One process of a run: its number from 0, how many there are, and the id of the run."""

    number: int
    workers: int
    run: str = ""


def devices(settings: Settings, workers: int) -> tuple[str, ...]:
    """Names of the devices that so many workers own, in the order of their numbers."""
    if settings.devices:
        return settings.devices
    kind, _, index = settings.device.partition(":")
    if kind == "cpu":
        shares = max(1, min(workers, _cores() // settings.threads))
        return tuple(f"cpu:{number}" for number in range(shares))
    visible = _visible() if kind == "cuda" and not index else []
    return tuple(f"cuda:{number}" for number in range(len(visible))) or (settings.device,)


def own_device(settings: Settings, worker: Worker) -> str:
    """The device that a worker may own; with more workers than devices, others may own it too."""
    names = devices(settings, worker.workers)
    return names[worker.number % len(names)]


def place_of(device: str) -> str:
    """What torch calls a device: of the processor it knows no shares."""
    return "cpu" if kind_of(device) == "cpu" else device


def kind_of(device: str) -> str:
    """``cpu``, ``cuda``, …: what of a device can decide bytes."""
    return device.partition(":")[0]


def lease_name(device: str) -> str:
    """Under which a device of this machine is known to every run on it, however each numbers them.

    Empty for the processor as a whole, which nobody waits for.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return f"cpu_{index}" if index else ""
    visible, number = _visible(), int(index or 0)
    found = visible[number] if kind == "cuda" and number < len(visible) else str(number)
    return "".join(c if c.isalnum() or c == "-" else "_" for c in f"{kind}_{found}")


def _visible() -> list[str]:
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [name.strip() for name in listed if name.strip()]


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
