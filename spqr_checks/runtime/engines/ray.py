"""Units made by a Ray cluster; this process owns the store, and pytest only reads it.

One actor for each device, which stays with a state while work for it is left. Orders, files of
inputs and artefacts travel as plain bytes; every artefact is checked when it arrives. A node that
dies costs the units that it was making; one that sends damaged bytes is asked no more.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.packages import importing
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.node import Answer, Node, fingerprint
from spqr_checks.runtime.engines.payloads import Failures, Input, packed, unpacked
from spqr_checks.store.manifest import DamagedError
from spqr_checks.store.store import Store, entry_key
from spqr_checks.store.timings import Timing, Work, record

_LOOK_EVERY = 3.0
"""Seconds between two looks at which nodes there are."""
_PATIENCE = 5.0
"""Seconds that a cluster may be without a node that helps."""
_TRIES = 3
"""How often a unit is begun that a node did not finish."""
_STARTS = 3
"""How often actors are started on a node."""
_DRAWS, _READS = 0.75, 0.25
"""Shares of an accelerator: of what draws and trains, and of what judges beside it."""
_READINGS = {"verdicts", "adherence", "features"}
_TRAININGS = {"weights", "tuning", "adaptation", "attacked"}
"""What images wait for."""


@dataclass(eq=False)
class _Worker:
    """An actor, and what is known of it."""

    actor: Any
    node: str
    reads: bool | None
    ready: Any
    holds: set[str] = field(default_factory=set)
    state: str = ""
    job: Unit | None = None
    processor: str = ""


class Fleet:
    """All actors on a cluster, and what they are asked for.

    Args:
        store: where artefacts arrive.
        address: of the cluster; ``auto`` for the one that this machine belongs to.
        told: settings, as `payloads.inputs` gives them.
        files: the files that they name.
        node: what makes units there.
        say: a line for people.
        deadline: time (``time.time()``) after which nothing new is begun.
    """

    def __init__(
        self,
        store: Store,
        address: str,
        told: dict[str, Any],
        files: Iterable[Input] = (),
        *,
        node: type[Node],
        say: Callable[[str], None] = print,
        deadline: float | None = None,
    ) -> None:
        with importing("engine ray", "ray", extra="ray"):
            import ray
        self._ray, self._store, self._told, self._node = ray, store, told, node
        self._say, self._deadline = say, deadline
        self._gpu = str(told["device"]).split(":")[0] != "cpu"
        self._workers: list[_Worker] = []
        self._starting: list[_Worker] = []
        self._alone = time.monotonic()
        self._starts: Counter[str] = Counter()
        self._left_out: dict[str, str] = {}
        self._tries: Counter[str] = Counter()
        self._processor = ""
        self._looked = -_LOOK_EVERY
        self._own = not ray.is_initialized()
        if self._own:
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                said = (str(error).strip().splitlines() or [""])[0]
                raise UserError(f"--spqr-ray-address {address}: no cluster: {said}") from error
        self.failed: Failures = {}
        self._inputs = [(one, one.sha256(), [ray.put(c) for c in one.chunks()]) for one in files]

    def close(self) -> None:
        """Ends the actors and, if it was made here, the connection."""
        for worker in (*self._workers, *self._starting):
            self._kill(worker)
        if self._own:
            self._ray.shutdown()

    # ---- units ---------------------------------------------------------------------------

    def make(self, wanted: Callable[[], Iterable[Unit]]) -> Failures:
        """Makes units, and asks again what is wanted, until nothing is that could be made.

        Raises:
            UserError: where no node can make anything.
        """
        while missing := {_key(unit): unit for unit in wanted() if _key(unit) not in self.failed}:
            before = len(self.failed), self._count(missing)
            self._round(missing)
            if self._over() or (len(self.failed), self._count(missing)) == before:
                break
        return self.failed

    def _count(self, units: dict[str, Unit]) -> int:
        return sum(self._store.holds(unit.kind, key) for key, unit in units.items())

    def _over(self) -> bool:
        return self._deadline is not None and time.time() >= self._deadline

    def _round(self, left: dict[str, Unit]) -> None:
        while left or any(worker.job for worker in self._workers):
            self._look()
            for worker in [w for w in self._workers if w.node in self._left_out and not w.job]:
                self._drop(worker)
            for worker in [] if self._over() else self._workers:
                if worker.job is None and (unit := self._next(worker, left)) is not None:
                    del left[_key(unit)]
                    self._begin(worker, unit)
            running = {w.ready: w for w in self._workers if w.job is not None}
            if not running:
                if self._over() or not self._stuck(left):
                    return
                time.sleep(0.2)
                continue
            done, _ = self._ray.wait([*running], timeout=1.0)
            for ref in done:
                self._end(running[ref], left)

    def _stuck(self, left: dict[str, Unit]) -> bool:
        """Whether to go on waiting for nodes; what needs a failed unit can never be made."""
        if self._workers:
            self._alone = time.monotonic()
            for key, unit in list(left.items()):
                lacks = [need for need in unit.needs if _key(need) in self.failed]
                if lacks:
                    self.failed[key] = self.failed[_key(lacks[0])]
                    del left[key]
            return bool(left) and any(self._ready(unit) for unit in left.values())
        if self._starting or time.monotonic() - self._alone < _PATIENCE:
            return True
        why = "; ".join(sorted(set(self._left_out.values())))
        raise UserError(f"engine ray: no node can make anything{': ' * bool(why)}{why}")

    def _ready(self, unit: Unit) -> bool:
        return all(self._store.holds(need.kind, _key(need)) for need in unit.needs)

    def _next(self, worker: _Worker, left: dict[str, Unit]) -> Unit | None:
        """Of what can be begun: the worker's state, then one that nobody is at, trainings first."""
        able = [
            unit
            for unit in left.values()
            if worker.reads in (None, _makes(unit) in _READINGS) and self._ready(unit)
        ]
        taken = {w.state for w in self._workers if w is not worker}
        amount = Counter(unit.state for unit in able)

        def rank(unit: Unit) -> tuple[bool, bool, bool, int]:
            needed = {_key(need) for need in unit.needs} <= worker.holds
            trains = _makes(unit) in _TRAININGS
            other = unit.state != worker.state and unit.state in taken
            return not trains, not (needed and unit.needs), other, -amount[unit.state]

        same = [unit for unit in able if unit.state == worker.state]
        return min(same or able, key=rank, default=None)

    def _begin(self, worker: _Worker, unit: Unit) -> None:
        assert unit.order is not None
        needs = []
        for need in unit.needs:
            if _key(need) not in worker.holds:
                entry = self._store.path(need.kind, need.recipe)
                if entry is not None:
                    needs.append((need.kind, _key(need), packed(entry)))
        worker.job, worker.state = unit, unit.state or worker.state
        ref = self._ray.put(needs) if needs else []
        worker.ready = worker.actor.make.remote(unit.order.to_json(), unit.kind, _key(unit), ref)

    def _end(self, worker: _Worker, left: dict[str, Unit]) -> None:
        unit, worker.job = worker.job, None
        assert unit is not None
        key = _key(unit)
        try:
            answer: Answer = self._ray.get(worker.ready)
        except self._ray.exceptions.RayError:
            self._drop(worker)
            self._again(unit, left, "nodes that made it died")
            return
        if answer.get("error") == "DamagedError":
            self._again(unit, left, f"what it needs arrived damaged: {answer['said']}")
        elif "error" in answer:
            self.failed[key] = (str(answer["error"]), str(answer["said"]))
        else:
            try:
                unpacked(answer["payload"], unit.kind, key, self._store)
            except DamagedError as error:
                self._leave_out(worker.node, f"sent a damaged artefact ({unit.label}: {error})")
                self._again(unit, left, f"arrived damaged: {error}")
                return
            worker.holds |= {key, *map(_key, unit.needs)}
            with suppress(ValueError):
                work = Work(name=unit.kind) if unit.work is None else unit.work()
                timing = Timing(**dict(work), label=unit.label, seconds=answer["seconds"])
                record(self._store.root, unit.kind, key, timing)

    def _again(self, unit: Unit, left: dict[str, Unit], why: str) -> None:
        self._tries[_key(unit)] += 1
        if self._tries[_key(unit)] < _TRIES:
            left[_key(unit)] = unit
        else:
            self.failed[_key(unit)] = ("RuntimeError", f"{unit.label}: {why}, {_TRIES} times")

    # ---- nodes ---------------------------------------------------------------------------

    def _look(self) -> None:
        """Starts actors on nodes that have none, now and then, and greets those that are up."""
        if self._starting:
            up, _ = self._ray.wait(
                [worker.ready for worker in self._starting],
                num_returns=len(self._starting),
                timeout=0 if self._workers else 1.0,
            )
            new = [worker for worker in self._starting if worker.ready in up]
            self._starting = [worker for worker in self._starting if worker not in new]
            self._greet(new)
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return
        self._looked = time.monotonic()
        for node in self._ray.nodes():
            name = node["NodeID"]
            if node["Alive"] and name not in self._left_out:
                new = self._started(name, node["Resources"])
                self._starts[name] += bool(new)
                if self._starts[name] > _STARTS:
                    self._leave_out(name, f"died {_STARTS} times")
                    for worker in new:
                        self._kill(worker)
                else:
                    self._starting += new

    def _started(self, node: str, resources: dict[str, float]) -> list[_Worker]:
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
        there = (*self._workers, *self._starting)
        have = Counter(worker.reads for worker in there if worker.node == node)
        for reads, gpus in kinds:
            if have[reads]:
                have[reads] -= 1
                continue
            given = {"num_cpus": threads if not self._gpu else 0, "num_gpus": gpus}
            actor = remote.options(**given, scheduling_strategy=pinned).remote(self._told)
            found.append(_Worker(actor, node, reads, actor.describe.remote()))
        return found

    def _greet(self, new: list[_Worker]) -> None:
        """Takes those whose libraries are ours and that compute alike, and sends them inputs."""
        ours, alike = fingerprint(), []
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
            worker.processor = about["processor"]
            if differing:
                self._leave_out(worker.node, f"has {', '.join(differing)}")
                self._kill(worker)
            else:
                alike.append(worker)
        if alike and not self._processor:
            counted = Counter(worker.processor for worker in alike)
            self._processor = min(counted, key=lambda name: (-counted[name], name))
        for worker in alike:
            if worker.processor != self._processor:
                said = f"computes on {worker.processor}, the others on {self._processor}"
                self._leave_out(worker.node, said)
                self._kill(worker)
            elif self._supplied(worker):
                self._workers.append(worker)

    def _supplied(self, worker: _Worker) -> bool:
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
            self._leave_out(worker.node, f"got other bytes than were sent of {wrong[0]}")
            self._kill(worker)
        return not wrong

    def _leave_out(self, node: str, why: str) -> None:
        if node not in self._left_out:
            self._left_out[node] = why
            self._say(f"engine ray: node {node[:8]} is left out: it {why}")
        for worker in [w for w in self._workers if w.node == node and w.job is None]:
            self._drop(worker)

    def _drop(self, worker: _Worker) -> None:
        self._kill(worker)
        if worker in self._workers:
            self._workers.remove(worker)

    def _kill(self, worker: _Worker) -> None:
        with suppress(Exception):
            self._ray.kill(worker.actor)


def _makes(unit: Unit) -> str:
    return unit.order.makes if unit.order is not None else ""


def _key(unit: Unit) -> str:
    return entry_key(unit.kind, unit.recipe)
