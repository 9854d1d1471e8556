"""Which of several machines makes what, where they can say nothing to each other.

Every machine must come to the same shares, whatever its store holds and however fast it is. Costs
are therefore reckoned from the settings alone, in passes of the denoiser: timings of one store
would make another split on each machine, and what none takes for its own would be missing.

What is fine-tuned or aligned is made wherever it is needed, since nobody could be waited for. So
the cells and images of a state stay together, unless the pieces of it outweigh that. The states
are tried whole and in ever smaller pieces, the costliest first, each where the load ends lowest
(longest processing time first, Graham 1969, with work that pieces share counted once); the split
with the lowest highest load is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.engines.shard import Share
from spqr_checks.settings import Settings
from spqr_checks.store.store import entry_key

Costs = Mapping[str, float]
"""Passes of the denoiser for each artefact of a job."""

_TRAINED = 3
"""Passes that a training step takes for each example: one forward, about two backward."""
_SEARCHED = 1000
"""Of an alignment whose steps are not known, and of an attack on one prompt."""
_CUTS = (0.5, 1.0, 2.0, 4.0)
"""Pieces for each machine that the states are cut into, if they are."""


def shares(session: MeasuringSession, n: int) -> list[Share]:
    """What each of n machines makes.

    With a fixed number of images every batch of images, with what is read off it, is one machine's.
    Where images are drawn until a cell is decided, only who has read all of them knows how many are
    needed: there every cell is one machine's, and images that cells share are drawn more than once.
    """
    fixed = session.run.settings.mode == "fixed"
    jobs, states = _batches(session) if fixed else _cells(session)
    found = split(jobs, states, n)
    return [
        Share(
            f"{place}/{n}",
            frozenset(key for name in names for key in jobs[name]),
            None if fixed else frozenset(names),
        )
        for place, names in enumerate(found, start=1)
    ]


def split(jobs: Mapping[str, Costs], states: Mapping[str, str], n: int) -> list[list[str]]:
    """Names of jobs for each of n machines, every job once.

    Args:
        jobs: name → the artefacts that it makes and their costs; jobs may share some.
        states: name → what jobs have in common; those of one state stay together as far as
            that pays.
    """
    together: dict[str, list[str]] = {}
    for name in jobs:
        together.setdefault(states[name], []).append(name)
    total = sum(_union(jobs, list(jobs)).values())
    trials = []
    for cuts in (0.0, *_CUTS):
        pieces = []
        for names in together.values():
            weight = sum(_union(jobs, names).values()) / total if total else 0.0
            count = max(1, min(n, len(names), math.ceil(weight * n * cuts)))
            edges = [len(names) * k // count for k in range(count + 1)]
            pieces += [names[a:b] for a, b in pairwise(edges)]
        trials.append(_assigned(jobs, pieces, n))
    return min(trials, key=lambda trial: sorted(trial[1], reverse=True))[0]


def _union(jobs: Mapping[str, Costs], names: Sequence[str]) -> dict[str, float]:
    return {key: cost for name in names for key, cost in jobs[name].items()}


def _assigned(
    jobs: Mapping[str, Costs], pieces: Sequence[list[str]], n: int
) -> tuple[list[list[str]], list[float]]:
    costs = [_union(jobs, piece) for piece in pieces]
    given: list[list[str]] = [[] for _ in range(n)]
    held: list[set[str]] = [set() for _ in range(n)]
    loads = [0.0] * n
    for place in sorted(range(len(pieces)), key=lambda p: -sum(costs[p].values())):
        ends = [
            loads[i] + sum(cost for key, cost in costs[place].items() if key not in held[i])
            for i in range(n)
        ]
        lowest = ends.index(min(ends))
        given[lowest] += pieces[place]
        held[lowest] |= costs[place].keys()
        loads[lowest] = ends[lowest]
    return given, loads


def _batches(session: MeasuringSession) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """A job of each batch of images, with what is read off it, and of each data set."""
    jobs: dict[str, dict[str, float]] = {}
    states: dict[str, str] = {}
    closure = _closures(session.run.settings)
    for cell in session.run.matrix.cells:
        for unit in session.reads(cell, 1):
            if unit.order is not None and unit.order.makes == "attacked":
                continue  # made with the images that need it
            drawn = unit
            while (images := _images(drawn)) is not None:
                drawn = images
            name = entry_key(drawn.kind, drawn.recipe)
            jobs.setdefault(name, {}).update(closure(unit))
            states[name] = unit.state
    return jobs, states


def _images(unit: Unit) -> Unit | None:
    """What a unit looks at: images as users see them, or those that a guard has let through."""
    shown = ("drawn", "images")
    return next((n for n in unit.needs if n.order is not None and n.order.makes in shown), None)


def _cells(session: MeasuringSession) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """A job of each cell, with its controls."""
    jobs: dict[str, dict[str, float]] = {}
    closure, matrix = _closures(session.run.settings), session.run.matrix
    for cell in matrix.cells:
        job = jobs[cell.id] = {}
        for each in (cell, *matrix.control_of(cell)):
            for unit in session.reads(each, 1):
                job.update(closure(unit))
    return jobs, {cell.id: cell.state.name for cell in matrix.cells}


def _closures(settings: Settings) -> Callable[[Unit], dict[str, float]]:
    """A unit's own cost and that of all it needs, by key; each reckoned once."""

    @cache
    def closure(unit: Unit) -> dict[str, float]:
        found = {entry_key(unit.kind, unit.recipe): passes(unit, settings)}
        for need in unit.needs:
            found |= closure(need)
        return found

    return closure


def passes(unit: Unit, settings: Settings) -> float:
    """Cost of a unit in passes of the denoiser, as far as settings say it."""
    work = unit.work() if unit.work is not None else None
    images = work.images if work is not None and work.images else 1
    match unit.order.makes if unit.order is not None else None:
        case "drawn" | "images" if _images(unit) is None:
            return float(images * _per_image(settings))
        case "tuning":
            assert unit.order is not None
            assert unit.order.state.tuning is not None
            profile = settings.profile[unit.order.state.tuning.profile]
            steps = work.steps if work is not None and work.steps else 1
            return float(_TRAINED * steps * profile.batch * profile.accumulation)
        case "weights" | "adaptation":
            steps = work.steps if work is not None and work.steps else 0
            return float(_TRAINED * steps or _SEARCHED)
        case "attacked" if unit.heavy:
            return float(_SEARCHED)
        case "data" if unit.state:
            return float(images * (1 + _per_image(settings)))
        case _:
            return float(images)


def _per_image(settings: Settings) -> int:
    return settings.sampler.steps * (2 if settings.sampler.guidance > 1 else 1)
