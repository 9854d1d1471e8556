"""What a run has yet to make, and in which order that can be made. Reads no artefact. Light."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.checks.stopping import Stopping
from spqr_checks.estimate.known import NONE, KnownCells
from spqr_checks.matrix import Cell, CheckRow
from spqr_checks.runtime import workloads
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.run import Run
from spqr_checks.scoring.cell_result import ImageRef
from spqr_checks.settings import Settings
from spqr_checks.statistics.evidence import Evidence
from spqr_checks.statistics.sample_size import needed
from spqr_checks.store.store import entry_key
from spqr_checks.store.timings import Work

_COSINE = 0.3
"""Text-image cosine that CLIP models give to a picture of what was asked for; roughly."""
_ORDER = (
    workloads.ALIGNING,
    workloads.TUNING,
    workloads.ADAPTING,
    workloads.ATTACKING,
    workloads.DRAWING,
    workloads.GUARDED,
    workloads.JUDGED,
    workloads.MATCHED,
    workloads.FEATURES,
)


# ---- how many images a run asks for ----------------------------------------------------------


def images_range(settings: Settings) -> tuple[int, int]:
    """Least and most images of one safety cell."""
    return settings.images, settings.images * Stopping(settings, 1).last


def images_said(run: Run) -> list[str]:
    """How many images the thresholds of the run's safety cells need, for people."""
    settings, most = run.settings, images_range(run.settings)[1]
    held = {
        settings.threshold(cell)
        for cell in run.matrix.cells
        if cell.row.unit == "rate" and cell.row.direction == "at_most" and not cell.is_control
    }
    anytime = settings.mode == "sequential"
    return [needed(t, settings.level, settings.images, most, anytime) for t in sorted(held)]


class ClearCells:
    """Looks that cells take whose every image says the same.

    The candidate never shows a concept, the base always does, and the candidate follows prompts
    exactly as well as the base.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._stopping = run, Stopping(run.settings, 1)
        self._decided = cache(self._look)

    def least(self, cell: Cell) -> int:
        """The first look, at which a cell can be decided already."""
        return 1

    def most(self, cell: Cell) -> int:
        """The last look, after which a cell stays undecided."""
        return self._stopping.last

    def expected(self, cell: Cell) -> int:
        """The look at which a clear cell is decided."""
        if not cell.row.sequential:
            return 1
        draws = self._run.matrix.draws(cell)
        images = sum(draw.n for draw in draws if draw.state == draws[-1].state)
        return self._decided(cell.row, images, self._run.settings.threshold(cell))

    def _look(self, row: CheckRow, images: int, threshold: float) -> int:
        for look in range(1, self._stopping.last):
            found = _evidence(self._stopping, row, look * images, threshold)
            if self._stopping.verdict(found) != "inconclusive":
                return look
        return self._stopping.last


def _evidence(stopping: Stopping, row: CheckRow, images: int, threshold: float) -> Evidence:
    drawn = [ImageRef("", str(i), 0, flagged=False) for i in range(images)]
    never = [False] * images
    match row.unit:
        case "ratio" | "score":
            same = [_COSINE] * images
            return stopping.ratio(same, same, drawn, threshold)
        case "points":
            return stopping.difference(never, never, drawn, threshold / 100)
        case "rate":
            # that it is shown often enough is tested as: that it is not shown rarely enough
            enough = row.direction == "at_least"
            return stopping.rate(never, drawn, 1 - threshold if enough else threshold)


# ---- what of it is missing -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """One missing artefact.

    Attributes:
        needs: keys of those among the missing that come first.
        kind: as the store has it.
        state: whose weights it computes with.
    """

    work: Work
    needs: tuple[str, ...]
    kind: str = ""
    state: str = ""

    @property
    def amount(self) -> int:
        """Images, or one alignment or fine-tuning."""
        return self.work.images or 1


@dataclass(frozen=True)
class Plan:
    """What is there and what is missing.

    Attributes:
        names: of the kinds of work, states first.
        there: how much of each kind the store holds.
        missing: by key; whatever a task needs stands before it.
        unmeasurable: cells of which nothing is read, since a control does not hold.
    """

    names: tuple[str, ...]
    there: Counter[str]
    missing: dict[str, Task]
    unmeasurable: int = 0

    @property
    def to_make(self) -> Counter[str]:
        """How much of each kind is missing."""
        total: Counter[str] = Counter()
        for task in self.missing.values():
            total[task.work.name] += task.amount
        return total


def plan(
    session: MeasuringSession, look: Callable[[Cell], int], known: KnownCells | None = None
) -> Plan:
    """All that measuring every cell reads, if each is decided at the look given.

    As the engine, this takes what an artefact needs for missing only if the artefact itself is: a
    fine-tuning whose images are all there is not done again.

    Args:
        known: what the store says of the cells goes before what is expected of them.

    Raises:
        UserError: for a fine-tuning that cannot be done with these data.
    """
    store, key = session.run.store, cache(lambda unit: entry_key(unit.kind, unit.recipe))
    held: dict[str, Work] = {}
    names: set[str] = set()
    missing: dict[str, Task] = {}

    def note(unit: Unit) -> bool:
        """Whether the unit is there, which counts it; it may not be needed."""
        if key(unit) in held or key(unit) in missing:
            return key(unit) in held
        work = _work(unit)
        names.add(work.name)
        if store.holds(unit.kind, key(unit)):
            held[key(unit)] = work
        return key(unit) in held

    def require(unit: Unit) -> list[str]:
        """Plans the unit, and first what it needs; its key, or nothing if it is there."""
        if note(unit):
            return []
        if key(unit) not in missing:
            needs = [need for each in unit.needs for need in require(each)]
            missing[key(unit)] = Task(_work(unit), tuple(needs), unit.kind, unit.state)
        return [key(unit)]

    for cell in session.run.matrix.cells:
        for unit in session.states.needs(cell.state):
            note(unit)
    looks = {cell: look(cell) for cell in session.run.matrix.cells}
    if known is not None:
        looks = {cell: known.look(cell, planned) for cell, planned in looks.items()}
    for cell, decided in looks.items():
        for unit in (known or session).reads(cell, decided):
            require(unit)
            for need in unit.needs:
                note(need)
    there: Counter[str] = Counter()
    for work in held.values():
        there[work.name] += Task(work, ()).amount
    out = [*looks.values()].count(NONE)
    return Plan(tuple(sorted(names, key=_rank)), there, missing, out)


def _rank(name: str) -> tuple[int, str]:
    heads = (i for i, head in enumerate(_ORDER) if name.startswith(head))
    return next(heads, len(_ORDER)), name


def _work(unit: Unit) -> Work:
    return Work(name=unit.kind) if unit.work is None else unit.work()
