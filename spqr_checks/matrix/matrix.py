"""Which cells a run has, and which images of which states they need. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from spqr_checks.matrix.checks import AXES, CHECKS, Axis, Check, CheckRow
from spqr_checks.matrix.states import ALIGNED, State, Tuning, is_tuned, state_of
from spqr_checks.prompts.prompt import ALL, PromptGroup


@dataclass(frozen=True, slots=True)
class Cell:
    """One measured assertion. ``attack`` is set where the prompts were attacked.

    One cell is one parametrized test; its id is stable across runs, machines and pytest versions.
    """

    check: Check
    state: State
    concept: str = ALL
    category: str = ALL
    language: str = ALL
    domain: str = ALL
    attack: str | None = None

    @property
    def row(self) -> CheckRow:
        """What the table says of its check."""
        return CHECKS[self.check]

    @property
    def axis(self) -> Axis:
        return self.row.axis

    @property
    def is_control(self) -> bool:
        """Controls prove that the measurement can work; they carry no score."""
        return self.row.control

    @property
    def place(self) -> str | None:
        """Where it counts: its axis, the axis' line after fine-tuning, or None for controls.

        S is the aligned model before fine-tuning; what happens to it afterwards is R, so
        suppression cells of fine-tuned states form a line of their own.
        """
        if self.is_control:
            return None
        apart = AXES[self.axis].after_tuning
        return apart if apart and self.state != ALIGNED else self.axis

    @property
    def threshold_field(self) -> str:
        """The field of the settings ``thresholds`` that it is held against."""
        tuned = self.row.limit_tuned if self.state.tuning is not None else None
        return (tuned or self.row.limit).field

    @property
    def id(self) -> str:
        """For example ``S-hazard-ar-sketch-lite.general.0``; never contains spaces."""
        head = self.axis if self.row.own_letter else f"{self.axis}.{self.check}"
        place = self.domain if self.attack is None else f"{self.domain}.{self.attack}"
        parts = (head, _slug(self.concept), self.language, _slug(place), self.state.short)
        return "-".join(parts)


def _slug(text: str) -> str:
    return "_".join(text.replace("-", "_").split())


@dataclass(frozen=True, slots=True)
class Draw:
    """``n`` images of one prompt group from one state."""

    state: State
    group: PromptGroup
    n: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Images per cell, by kind of the prompts; ``gain``: of captions of the fine-tuning data."""

    harmful: int
    lookalike: int
    benign: int
    gain: int

    def of(self, kind: str) -> int:
        """Images of a group of that kind at the first look."""
        return self.gain if kind == "tuning" else int(getattr(self, kind))


@dataclass(frozen=True)
class Matrix:
    """All cells of a run, ordered so that the cells of one state are neighbours."""

    cells: tuple[Cell, ...]
    groups: tuple[PromptGroup, ...]
    categories: dict[str, str]
    tunings: tuple[Tuning, ...]
    sizes: Sizes

    @classmethod
    def build(
        cls,
        groups: Iterable[PromptGroup],
        categories: dict[str, str],
        tunings: Sequence[Tuning],
        sizes: Sizes,
    ) -> Matrix:
        """The full matrix over prompt groups and fine-tunings.

        Args:
            groups: prompt groups that are in scope (concepts, languages, domains chosen).
            categories: concept → category.
            tunings: benign fine-tunings of the candidate (and, as ceiling, of the base).
        """
        ordered = tuple(sorted(set(groups)))
        cells = [
            cell
            for tuning in (None, *tunings)
            for row in CHECKS.values()
            for role in row.at
            if is_tuned(role) == (tuning is not None)
            for cell in _cells(row, state_of(role, tuning), ordered, categories)
        ]
        return cls(tuple(cells), ordered, dict(categories), tuple(tunings), sizes)

    def select(self, kind: str) -> tuple[PromptGroup, ...]:
        """Prompt groups of one kind."""
        return tuple(g for g in self.groups if g.kind == kind)

    def draws(self, cell: Cell, look: int = 1) -> tuple[Draw, ...]:
        """Images that the cell is measured on; shared draws are equal across cells.

        Prompts of the kind ``tuning`` are captions of the fine-tuning data. What is compared by
        distances, which are no means over images, is measured at the first look only.

        Args:
            look: how many times as many images as at the first look; later looks begin with the
                images of earlier ones.
        """
        row, tuning = cell.row, cell.state.tuning
        # a user's own check may ask for another state than the suites measure
        states = [
            cell.state if role in row.at else state_of(role, tuning) for role in row.draws
        ] or [cell.state]
        if row.prompts == "tuning":
            assert tuning is not None
            groups: tuple[PromptGroup, ...] = (PromptGroup("tuning", tuning.dataset, ALL, ALL),)
        elif row.each_group:
            groups = (PromptGroup(row.prompts, cell.concept, cell.language, cell.domain),)
        else:
            groups = self.select(row.prompts)
        n = self.sizes.of(row.prompts) * (look if row.sequential else 1)
        return tuple(Draw(state, group, n) for state in states for group in groups)

    def control_of(self, cell: Cell) -> tuple[Cell, ...]:
        """Controls that must hold for the cell to be measurable."""
        place = (cell.concept, cell.category, cell.language, cell.domain)
        return tuple(
            Cell(control, state_of(role, cell.state.tuning), *place)
            for control in cell.row.controls
            for role in CHECKS[control].at
        )


def _cells(
    row: CheckRow, state: State, groups: Sequence[PromptGroup], categories: dict[str, str]
) -> Iterator[Cell]:
    own = [g for g in groups if g.kind == row.prompts]
    if row.each_group:
        for g in own:
            category = categories.get(g.concept, ALL)
            yield Cell(row.name, state, g.concept, category, g.language, g.domain)
    elif own or state.tuning is not None:
        yield Cell(row.name, state)
