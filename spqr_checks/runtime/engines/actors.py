"""Actors of a Ray cluster: started on its nodes, compared with here and each other, given inputs.

A node of other libraries, of another processor than most, and one that sends damaged bytes is left
out, in one line for people.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from spqr_checks.runtime.devices import kind_of
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.node import Node, fingerprint
from spqr_checks.runtime.engines.payloads import Input

_LOOK_EVERY = 3.0
"""Seconds between two looks at which nodes there are."""
_UP = 300.0
"""Seconds within which an actor must be up; until then its share of a device may be taken."""
_COMPARE = 30.0
"""Seconds that the first nodes wait for others, to see what most of them compute on."""
_LAST = 5.0
"""Seconds that actors have to remove what they kept."""
_STARTS = 3
"""How often actors are started on a node that makes nothing."""
_DRAWS, _READS = 0.75, 0.25
"""Shares of an accelerator: of what draws and trains, and of what judges beside it."""


@dataclass(eq=False)
class Worker:
    """An actor, and what is known of it."""

    actor: Any
    node: str
    reads: bool | None
    ready: Any
    holds: set[str] = field(default_factory=set)
    state: str = ""
    job: Unit | None = None
    processor: str = ""
    since: float = field(default_factory=time.monotonic)


class Actors:
    """All actors on a cluster.

    Attributes:
        working: those that make units.
        left_out: nodes that are not asked, and why.
        lacks: on which nodes no actor of a kind came up, and why.

    Args:
        ray: the library, connected.
        told, files, node, say: as of `ray.Fleet`.
    """

    def __init__(
        self,
        ray: Any,
        told: dict[str, Any],
        files: Iterable[Input],
        node: type[Node],
        say: Callable[[str], None],
    ) -> None:
        self.working: list[Worker] = []
        self.left_out: dict[str, str] = {}
        self.lacks: dict[tuple[str, bool | None], str] = {}
        self._ray, self._told, self._node, self._say = ray, told, node, say
        devices = told["device"], told.get("judge_device") or "cpu"
        self._gpu = any(kind_of(str(one)) != "cpu" for one in devices)
        self._starting: list[Worker] = []
        self._up: list[Worker] = []
        self._starts: Counter[tuple[str, bool | None]] = Counter()
        self._processor = ""
        self._looked = -_LOOK_EVERY
        self._inputs = [(one, one.sha256(), [ray.put(c) for c in one.chunks()]) for one in files]

    def every(self) -> tuple[Worker, ...]:
        """Those that work, are up or are starting."""
        return *self.working, *self._up, *self._starting

    def close(self) -> None:
        """Ends all."""
        self._kill(*self.every())

    def succeeded(self, worker: Worker) -> None:
        """A node has made something: it may die again."""
        self._starts[worker.node, worker.reads] = 0

    def look(self) -> None:
        """Starts actors on nodes that have none, now and then, and greets those that are up."""
        if self._starting:
            up, _ = self._ray.wait(
                [worker.ready for worker in self._starting],
                num_returns=len(self._starting),
                timeout=0 if self.working else 1.0,
            )
            new = [worker for worker in self._starting if worker.ready in up]
            self._starting = [worker for worker in self._starting if worker not in new]
            self._greet(new)
            self._give_up_on_late()
        first = min((worker.since for worker in self._up), default=0.0)
        if self._up and (
            self._processor or not self._starting or time.monotonic() - first > _COMPARE
        ):
            self._compare()
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return
        self._looked = time.monotonic()
        for node in self._ray.nodes():
            name = node["NodeID"]
            if node["Alive"] and name not in self.left_out:
                new = self._started(name, node["Resources"])
                for reads in {worker.reads for worker in new}:
                    self._starts[name, reads] += 1
                    if self._starts[name, reads] > _STARTS:
                        self._lack(name, reads, f"died {_STARTS} times")
                for worker in new:
                    if name in self.left_out or (name, worker.reads) in self.lacks:
                        self._kill(worker)
                    else:
                        self._starting.append(worker)

    def _lack(self, node: str, reads: bool | None, why: str) -> None:
        """Starts no more actors of a kind on a node; one that only had such is left out."""
        if reads is None:
            self.leave_out(node, why)
        else:
            said = f"what {'judges' if reads else 'draws'} on node {node[:8]} {why}"
            self.lacks[node, reads] = said
            self._say(f"engine ray: {said}")

    def _started(self, node: str, resources: dict[str, float]) -> list[Worker]:
        """Actors for what of a node's devices has none."""
        threads = int(self._told["threads"])
        if self._gpu:
            kinds: list[tuple[bool | None, float]] = [(False, _DRAWS), (True, _READS)]
            kinds *= int(resources.get("GPU", 0))
        else:
            kinds = [(None, 0.0)] * int(resources.get("CPU", 0) // threads)
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        pinned = NodeAffinitySchedulingStrategy(node, soft=False)
        remote = self._ray.remote(self._node)
        found = []
        there = self.every()
        have = Counter(worker.reads for worker in there if worker.node == node)
        for reads, gpus in kinds:
            if have[reads]:
                have[reads] -= 1
                continue
            if (node, reads) in self.lacks:
                continue
            given = {"num_cpus": threads if not self._gpu else 0, "num_gpus": gpus}
            actor = remote.options(**given, scheduling_strategy=pinned).remote(self._told)
            found.append(Worker(actor, node, reads, actor.describe.remote()))
        return found

    def _give_up_on_late(self) -> None:
        late = [w for w in self._starting if time.monotonic() - w.since > _UP]
        for worker in late:
            self._kill(worker)
            self._starting.remove(worker)
            self._lack(worker.node, worker.reads, f"is not up after {_UP:.0f} s; is it taken?")

    def _greet(self, new: list[Worker]) -> None:
        """Takes those whose libraries are ours."""
        ours = fingerprint()
        for worker in new:
            try:
                about = self._ray.get(worker.ready)
            except self._ray.exceptions.RayError:
                self._kill(worker)
                continue
            differing = [
                f"{name} {about['fingerprint'].get(name, 'none')}, here {version}"
                for name, version in ours.items()
                if about["fingerprint"].get(name) != version
            ]
            worker.processor, worker.since = about["processor"], time.monotonic()
            if differing:
                self.leave_out(worker.node, f"has {', '.join(differing)}")
                self._kill(worker)
            else:
                self._up.append(worker)

    def _compare(self) -> None:
        """Of those that are up, takes what computes as most nodes do, and sends them inputs."""
        up, self._up = self._up, []
        if not self._processor:
            nodes = {worker.node: worker.processor for worker in up}
            counted = Counter(nodes.values())
            self._processor = min(counted, key=lambda name: (-counted[name], name))
            if others := ", ".join(
                f"{n} on {name}" for name, n in sorted(counted.items()) if name != self._processor
            ):
                most = f"{counted[self._processor]} nodes compute on {self._processor}"
                self._say(f"engine ray: {most}; left out, since bytes may differ: {others}")
                for node, name in nodes.items():
                    if name != self._processor:
                        self.left_out[node] = f"computes on {name}"
        for worker in up:
            if worker.processor != self._processor:
                said = f"computes on {worker.processor}, the others on {self._processor}"
                self.leave_out(worker.node, said)
                self._kill(worker)
            elif self._supplied(worker):
                self.working.append(worker)

    def _supplied(self, worker: Worker) -> bool:
        try:
            for one, _, chunks in self._inputs:
                for chunk in chunks:
                    worker.actor.append.remote(one.place, chunk)
            sums = {one.place: sha256 for one, sha256, _ in self._inputs}
            wrong = self._ray.get(worker.actor.check.remote(sums))
        except self._ray.exceptions.RayError:
            self._kill(worker)
            return False
        if wrong:
            self.leave_out(worker.node, f"got other bytes than were sent of {wrong[0]}")
            self._kill(worker)
        return not wrong

    def leave_out(self, node: str, why: str) -> None:
        """Asks a node no more, and says why; what it is making may still arrive."""
        if node not in self.left_out:
            self.left_out[node] = why
            self._say(f"engine ray: node {node[:8]} is left out: it {why}")
        for worker in [w for w in self.working if w.node == node and w.job is None]:
            self.drop(worker)

    def drop(self, worker: Worker) -> None:
        """Ends an actor."""
        self._kill(worker)
        if worker in self.working:
            self.working.remove(worker)

    def _kill(self, *workers: Worker) -> None:
        """Ends actors; those that are idle remove their folders before."""
        idle = [w for w in workers if w.job is None and w not in self._starting]
        with suppress(Exception):
            if ended := [worker.actor.close.remote() for worker in idle]:
                self._ray.wait(ended, num_returns=len(ended), timeout=_LAST)
        for worker in workers:
            with suppress(Exception):
                self._ray.kill(worker.actor)
