"""Which cells a run has, and which images of which states they need. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from spqr_checks.matrix.checks import AXES, CHECKS, Axis, Check, CheckRow
from spqr_checks.matrix.states import ALIGNED, Adaptation, State, Tuning, comes_after, state_of
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
        """Where it counts: its axis, a line of the axis' own beside it, or None for controls.

        S is the aligned model before fine-tuning; what happens to it afterwards is R, so
        suppression cells of fine-tuned states form a line of their own, and so do attacked ones.
        Drifts under other adaptations do as well, lest R depend on which a run happens to name.
        """
        if self.is_control:
            return None
        axis = AXES[self.axis]
        if self.attack is not None:
            assert axis.under_attack is not None
            return axis.under_attack[self.state != ALIGNED]
        if self.state.adaptation is not None and axis.adapted:
            return axis.adapted
        apart = axis.after_tuning
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
    """``n`` images of one prompt group from one state.

    Attributes:
        attack: by which the prompts were attacked, if they were.
        prompts: of the group at most so many, the first ones to be drawn; None: all.
    """

    state: State
    group: PromptGroup
    n: int
    attack: str | None = None
    prompts: int | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """Images per cell, by kind of the prompts; ``gain``: of captions of the fine-tuning data.

    ``attacked`` is the largest number of prompts of a group that are attacked, None for all.
    """

    harmful: int
    lookalike: int
    benign: int
    gain: int
    attacked: int | None = None

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
    adaptations: tuple[Adaptation, ...] = ()

    @classmethod
    def build(
        cls,
        groups: Iterable[PromptGroup],
        categories: dict[str, str],
        tunings: Sequence[Tuning],
        sizes: Sizes,
        adaptations: Sequence[Adaptation] = (),
        attacks: Mapping[str, Collection[PromptGroup]] = MappingProxyType({}),
    ) -> Matrix:
        """The full matrix over prompt groups, attacks, fine-tunings and other adaptations.

        Args:
            groups: prompt groups that are in scope (concepts, languages, domains chosen).
            categories: concept → category.
            tunings: benign fine-tunings of the candidate (and, as ceiling, of the base).
            adaptations: other benign changes, likewise.
            attacks: name → groups whose prompts it can attack.
        """
        ordered = tuple(sorted(set(groups)))
        cells = [
            cell
            for change in (None, *tunings, *adaptations)
            for row in CHECKS.values()
            for role in row.at
            if comes_after(role, change)
            for cell in _cells(row, state_of(role, change), ordered, categories, attacks)
        ]
        changes = tuple(tunings), sizes, tuple(adaptations)
        return cls(tuple(cells), ordered, dict(categories), *changes)

    def select(self, kind: str) -> tuple[PromptGroup, ...]:
        """Prompt groups of one kind."""
        return tuple(g for g in self.groups if g.kind == kind)

    def draws(self, cell: Cell, look: int = 1) -> tuple[Draw, ...]:
        """Images that the cell is measured on; shared draws are equal across cells.

        Prompts of the kind ``tuning`` are captions of the images that a state was trained on. What
        is compared by distances, which are no means over images, is measured at the first look
        only.

        Args:
            look: how many times as many images as at the first look; later looks begin with the
                images of earlier ones.
        """
        row, change = cell.row, cell.state.change
        if cell.attack is not None:
            return self._attacked(cell, look)
        # a user's own check may ask for another state than the suites measure
        states = [
            cell.state if role in row.at else state_of(role, change) for role in row.draws
        ] or [cell.state]
        if row.prompts == "tuning":
            assert cell.state.data is not None
            groups: tuple[PromptGroup, ...] = (PromptGroup("tuning", cell.state.data, ALL, ALL),)
        elif row.each_group:
            groups = (PromptGroup(row.prompts, cell.concept, cell.language, cell.domain),)
        else:
            groups = self.select(row.prompts)
        n = self.sizes.of(row.prompts) * (look if row.sequential else 1)
        return tuple(Draw(state, group, n) for state in states for group in groups)

    def _attacked(self, cell: Cell, look: int) -> tuple[Draw, ...]:
        """The attacked images, and at the first look the same prompts and seeds unattacked.

        A control is not compared with anything.
        """
        group = PromptGroup(cell.row.prompts, cell.concept, cell.language, cell.domain)
        most, first = self.sizes.attacked, self.sizes.of(cell.row.prompts)
        drawn = Draw(cell.state, group, first * look, cell.attack, most)
        plain = replace(drawn, n=first, attack=None)
        return (drawn,) if cell.is_control else (drawn, plain)

    def control_of(self, cell: Cell) -> tuple[Cell, ...]:
        """Controls that must hold for the cell to be measurable."""
        place = (cell.concept, cell.category, cell.language, cell.domain)
        change = cell.state.change
        return tuple(
            Cell(control, state_of(role, change), *place, attack)
            for control in cell.row.controls
            for attack in (cell.attack if CHECKS[control].of_attacks else None,)
            for role in CHECKS[control].at
            if comes_after(role, None) or comes_after(role, change)
            if CHECKS[control].data != "tuning" or cell.state.data is not None
        )


def _cells(
    row: CheckRow,
    state: State,
    groups: Sequence[PromptGroup],
    categories: dict[str, str],
    attacks: Mapping[str, Collection[PromptGroup]],
) -> Iterator[Cell]:
    own = [g for g in groups if g.kind == row.prompts]
    if row.data == "tuning" and state.data is None:
        return
    if row.of_attacks:
        for attack, reached in attacks.items():
            for g in (g for g in own if g in reached):
                category = categories.get(g.concept, ALL)
                yield Cell(row.name, state, g.concept, category, g.language, g.domain, attack)
    elif row.each_group:
        for g in own:
            category = categories.get(g.concept, ALL)
            yield Cell(row.name, state, g.concept, category, g.language, g.domain)
    elif own or state.change is not None:
        yield Cell(row.name, state)
