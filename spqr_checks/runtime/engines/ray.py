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
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.packages import importing
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.actors import Actors, Worker
from spqr_checks.runtime.engines.node import Answer, Node
from spqr_checks.runtime.engines.payloads import Failures, Input, packed, unpacked
from spqr_checks.store.manifest import DamagedError
from spqr_checks.store.store import Store, entry_key
from spqr_checks.store.timings import Timing, Work, record

_PATIENCE = 5.0
"""Seconds that a cluster may be without a node that helps."""
_QUIET = 30.0
"""Seconds without work after which it is said what is waited for."""
_TRIES = 3
"""How often a unit is begun that a node did not finish."""
_READINGS = {"verdicts", "adherence", "features"}
_TRAININGS = {"weights", "tuning", "adaptation", "attacked"}
"""What images wait for."""


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
        self._ray, self._store, self._say, self._deadline = ray, store, say, deadline
        self._alone = time.monotonic()
        self._said = False
        self._tries: Counter[str] = Counter()
        self._own = not ray.is_initialized()
        if self._own:
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                said = (str(error).strip().splitlines() or [""])[0]
                raise UserError(f"--spqr-ray-address {address}: no cluster: {said}") from error
        self.failed: Failures = {}
        self._actors = Actors(ray, told, files, node, say)

    def close(self) -> None:
        """Ends the actors and, if it was made here, the connection."""
        self._actors.close()
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
        while left or any(worker.job for worker in self._actors.working):
            self._actors.look()
            actors = self._actors
            for worker in [w for w in actors.working if w.node in actors.left_out and not w.job]:
                actors.drop(worker)
            for worker in [] if self._over() else actors.working:
                if worker.job is None and (unit := self._next(worker, left)) is not None:
                    del left[_key(unit)]
                    self._begin(worker, unit, left)
            running = {w.ready: w for w in actors.working if w.job is not None}
            if running:
                self._alone = time.monotonic()
            else:
                if self._over() or not self._stuck(left):
                    return
                time.sleep(0.2)
                continue
            done, _ = self._ray.wait([*running], timeout=1.0)
            for ref in done:
                self._end(running[ref], left)

    def _stuck(self, left: dict[str, Unit]) -> bool:
        """Whether to go on waiting for nodes; what needs a failed unit can never be made."""
        for key, unit in list(left.items()):
            lacks = [need for need in unit.needs if _key(need) in self.failed]
            if lacks:
                self.failed[key] = self.failed[_key(lacks[0])]
                del left[key]
        ready = [unit for unit in left.values() if self._ready(unit)]
        actors = self._actors
        if not ready and actors.working:
            return False
        there, wanted = actors.every(), {_reads(unit) for unit in ready}
        what = "judge" if True in wanted else "draw"
        what = what if actors.working else "make anything"
        alone = time.monotonic() - self._alone
        kinds = {worker.reads for worker in there}
        can = bool(kinds) and (None in kinds or wanted <= kinds)
        if alone > _PATIENCE and not can:
            why = "; ".join(sorted({*actors.left_out.values(), *actors.lacks.values()}))
            why = why or "the cluster has none of the devices that are asked for"
            raise UserError(f"engine ray: no node can {what}: {why}")
        if alone > _QUIET and not self._said:
            self._say(f"engine ray: waits for a node that can {what}")
            self._said = True
        return True

    def _ready(self, unit: Unit) -> bool:
        return all(self._store.holds(need.kind, _key(need)) for need in unit.needs)

    def _next(self, worker: Worker, left: dict[str, Unit]) -> Unit | None:
        """Of what can be begun: the worker's state, then one that nobody is at, trainings first."""
        able = [
            unit
            for unit in left.values()
            if worker.reads in (None, _reads(unit)) and self._ready(unit)
        ]
        taken = {w.state for w in self._actors.working if w is not worker}
        amount = Counter(unit.state for unit in able)

        def rank(unit: Unit) -> tuple[bool, bool, bool, int]:
            needed = {_key(need) for need in unit.needs} <= worker.holds
            trains = _makes(unit) in _TRAININGS
            other = unit.state != worker.state and unit.state in taken
            return not trains, not (needed and unit.needs), other, -amount[unit.state]

        same = [unit for unit in able if unit.state == worker.state]
        return min(same or able, key=rank, default=None)

    def _begin(self, worker: Worker, unit: Unit, left: dict[str, Unit]) -> None:
        assert unit.order is not None
        needs = []
        for need in unit.needs:
            if _key(need) not in worker.holds:
                entry = self._store.path(need.kind, need.recipe)
                if entry is None:  # it was there a moment ago
                    left[_key(need)] = need
                    self._again(unit, left, f"{need.label} is damaged or was removed")
                    return
                needs.append((need.kind, _key(need), packed(entry)))
        worker.job, worker.state = unit, unit.state or worker.state
        ref = self._ray.put(needs) if needs else []
        worker.ready = worker.actor.make.remote(unit.order.to_json(), unit.kind, _key(unit), ref)

    def _end(self, worker: Worker, left: dict[str, Unit]) -> None:
        unit, worker.job = worker.job, None
        assert unit is not None
        key = _key(unit)
        try:
            answer: Answer = self._ray.get(worker.ready)
        except self._ray.exceptions.RayError:
            self._actors.drop(worker)
            self._again(unit, left, "nodes that made it died")
            return
        self._actors.succeeded(worker)
        if answer.get("error") == "DamagedError":
            worker.holds -= {*map(_key, unit.needs)}
            self._again(unit, left, f"what it needs arrived damaged: {answer['said']}")
        elif "error" in answer:
            self.failed[key] = (str(answer["error"]), str(answer["said"]))
        else:
            try:
                unpacked(answer["payload"], unit.kind, key, self._store)
            except DamagedError as error:
                said = f"sent a damaged artefact ({unit.label}: {error})"
                self._actors.leave_out(worker.node, said)
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


def _makes(unit: Unit) -> str:
    return unit.order.makes if unit.order is not None else ""


def _reads(unit: Unit) -> bool:
    return _makes(unit) in _READINGS


def _key(unit: Unit) -> str:
    return entry_key(unit.kind, unit.recipe)
