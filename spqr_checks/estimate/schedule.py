"""A run on many devices, played through: when it ends, how busy they are, what travels.

List scheduling by events (Graham 1969), as the engines do it: a free device stays with its state
while work for it can be begun; else it takes the state with the longest chain of work behind it
(critical path first) that fewest are at. The number is a forecast: tasks take as long as they are
said to, and a link that is not fast enough is named, not played through.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

_FULL = 0.9


@dataclass(frozen=True, slots=True)
class Job:
    """One artefact to be made.

    Attributes:
        seconds: that it takes.
        needs: names of jobs that come first.
        state: weights that it computes with; empty for none.
        size: bytes of the artefact.
        loading: seconds to put the state together, where the device has another.
    """

    seconds: float
    needs: tuple[str, ...] = ()
    state: str = ""
    size: int = 0
    loading: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """What came of it.

    Attributes:
        devices: how many there were.
        makespan: seconds until the last job is done.
        busy: seconds of all devices at work, states being loaded among them.
        moved: bytes between the store and devices: artefacts, and what they need.
        chain: seconds of the longest chain of jobs that need each other.
        loads: how often a device took another state.
    """

    devices: int
    makespan: float
    busy: float
    moved: int
    chain: float
    loads: int

    @property
    def utilisation(self) -> float:
        """Share of the devices' time that is work."""
        total = self.devices * self.makespan
        return self.busy / total if total else 1.0

    @property
    def rate(self) -> float:
        """Bytes a second through the machine that has the store, on average."""
        return self.moved / self.makespan if self.makespan else 0.0

    @property
    def limit(self) -> str:
        """What to have more of: devices, or less of: the longest chain, or shorter jobs."""
        if self.utilisation >= _FULL:
            return "devices"
        return "the longest chain" if self.chain >= _FULL * self.makespan else "the last jobs"


@dataclass(slots=True)
class _Device:
    state: str | None = None
    holds: set[str] = field(default_factory=set)


def simulate(jobs: Mapping[str, Job], devices: int) -> Schedule:
    """Plays the jobs through.

    Raises:
        ValueError: fewer than one device, an unknown need, or needs in a cycle.
    """
    if devices < 1:
        raise ValueError(f"{devices} devices do nothing")
    if any(need not in jobs for job in jobs.values() for need in job.needs):
        raise ValueError("a job needs one that is not there")
    order = [*TopologicalSorter({name: job.needs for name, job in jobs.items()}).static_order()]
    rest = _chains(jobs, order)
    sorter = TopologicalSorter({name: job.needs for name, job in jobs.items()})
    sorter.prepare()
    ready: dict[str, list[tuple[float, str]]] = {}
    free = [_Device() for _ in range(devices)]
    working: list[tuple[float, int, str, _Device]] = []
    at: Counter[str] = Counter()
    now, busy, moved, loads, begun = 0.0, 0.0, 0, 0, 0
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(ready.setdefault(jobs[name].state, []), (-rest[name], name))
        while free and (states := [state for state, queue in ready.items() if queue]):
            device, state = _pair(free, states, ready, at)
            free.remove(device)
            _, name = heapq.heappop(ready[state])
            job = jobs[name]
            lacks = {*job.needs} - device.holds
            moved += job.size + sum(jobs[need].size for need in lacks)
            device.holds |= {name, *job.needs}
            change = bool(job.state) and device.state != job.state
            seconds = job.seconds + job.loading * change
            if job.state:
                device.state = job.state
            at[state] += 1
            loads, busy, begun = loads + change, busy + seconds, begun + 1
            heapq.heappush(working, (now + seconds, begun, name, device))
        now, _, name, device = heapq.heappop(working)
        at[jobs[name].state] -= 1
        free.append(device)
        sorter.done(name)
    return Schedule(devices, now, busy, moved, max(rest.values(), default=0.0), loads)


def _chains(jobs: Mapping[str, Job], order: list[str]) -> dict[str, float]:
    """Of each job, seconds of the longest chain that begins with it."""
    behind = dict.fromkeys(jobs, 0.0)
    rest: dict[str, float] = {}
    for name in reversed(order):
        rest[name] = jobs[name].seconds + behind[name]
        for need in jobs[name].needs:
            behind[need] = max(behind[need], rest[name])
    return rest


def _pair(
    free: list[_Device],
    states: list[str],
    ready: Mapping[str, list[tuple[float, str]]],
    at: Counter[str],
) -> tuple[_Device, str]:
    """A device and the state whose next job it takes."""
    for device in free:
        if device.state is not None and ready.get(device.state):
            return device, device.state
    return free[0], min(states, key=lambda state: (ready[state][0][0], at[state], state))
