"""Which cells exist, and which model states and images they need. Pure.

One cell is one parametrized test; its id is stable across runs, machines and pytest versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from spqr_checks.prompts.prompt import ALL, PromptGroup

Axis = Literal["S", "P", "Q", "R"]
Check = Literal[
    "suppression",
    "positive_control",
    "negative_control",
    "adherence",
    "over_refusal",
    "quality",
    "drift",
    "gain_control",
    "ceiling_control",
]
Origin = Literal["base", "aligned", "destroyed"]

_AXIS: dict[Check, Axis] = {
    "suppression": "S",
    "positive_control": "S",
    "negative_control": "S",
    "adherence": "P",
    "over_refusal": "P",
    "quality": "Q",
    "drift": "R",
    "gain_control": "R",
    "ceiling_control": "R",
}
_IMPLIED: frozenset[Check] = frozenset({"suppression", "adherence", "quality", "drift"})
"""The check that an axis letter alone stands for in a cell's id."""


@dataclass(frozen=True, slots=True, order=True)
class Tuning:
    """One benign fine-tuning: profile, data set label and seed."""

    profile: str
    dataset: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.profile}.{self.dataset}.{self.seed}"


@dataclass(frozen=True, slots=True)
class State:
    """Weights under test.

    ``base`` is the unaligned model, ``aligned`` the candidate as released, ``destroyed`` the base
    with shuffled denoiser weights (the zero of the quality scale). ``tuning`` is the benign
    fine-tuning that followed, if any.
    """

    origin: Origin
    tuning: Tuning | None = None

    @property
    def name(self) -> str:
        """``aligned``, ``base+lite.general.0``; as used in reports."""
        return self.origin if self.tuning is None else f"{self.origin}+{self.tuning.name}"

    @property
    def short(self) -> str:
        """As used in cell ids: a tuned candidate is named by its fine-tuning alone."""
        if self.tuning is None:
            return self.origin
        return self.tuning.name if self.origin == "aligned" else f"{self.origin}.{self.tuning.name}"


BASE, ALIGNED, DESTROYED = State("base"), State("aligned"), State("destroyed")


@dataclass(frozen=True, slots=True)
class Draw:
    """``n`` images of one prompt group from one state."""

    state: State
    group: PromptGroup
    n: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One measured assertion. ``attack`` is set where the prompts were attacked."""

    check: Check
    state: State
    concept: str = ALL
    category: str = ALL
    language: str = ALL
    domain: str = ALL
    attack: str | None = None

    @property
    def axis(self) -> Axis:
        return _AXIS[self.check]

    @property
    def is_control(self) -> bool:
        """Controls prove that the measurement can work; they carry no score."""
        return self.check.endswith("_control")

    @property
    def id(self) -> str:
        """For example ``S-hazard-ar-sketch-lite.general.0``; never contains spaces."""
        head = self.axis if self.check in _IMPLIED else f"{self.axis}.{self.check}"
        place = self.domain if self.attack is None else f"{self.domain}.{self.attack}"
        parts = (head, _slug(self.concept), self.language, _slug(place), self.state.short)
        return "-".join(parts)


def _slug(text: str) -> str:
    return "_".join(text.replace("-", "_").split())


@dataclass(frozen=True, slots=True)
class Sizes:
    """Images per cell: harmful prompts, look-alikes, benign prompts (alignment), quality, gain."""

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
        harmful = [g for g in ordered if g.kind == "harmful"]
        lookalike = [g for g in ordered if g.kind == "lookalike"]
        benign = [g for g in ordered if g.kind == "benign"]
        cells: list[Cell] = []

        def over(check: Check, state: State, where: Sequence[PromptGroup]) -> None:
            cells.extend(
                Cell(
                    check,
                    state,
                    g.concept,
                    categories.get(g.concept, ALL),
                    g.language,
                    g.domain,
                )
                for g in where
            )

        over("positive_control", BASE, harmful)
        over("negative_control", BASE, lookalike)
        over("suppression", ALIGNED, harmful)
        over("over_refusal", ALIGNED, lookalike)
        over("adherence", ALIGNED, benign)
        if benign:
            cells.append(Cell("quality", ALIGNED))
        for tuning in tunings:
            ceiling, tuned = State("base", tuning), State("aligned", tuning)
            cells.append(Cell("ceiling_control", ceiling))
            cells.append(Cell("gain_control", tuned))
            cells.append(Cell("drift", tuned))
            over("suppression", tuned, harmful)
        return cls(tuple(cells), ordered, dict(categories), tuple(tunings), sizes)

    def select(self, kind: str) -> tuple[PromptGroup, ...]:
        """Prompt groups of one kind."""
        return tuple(g for g in self.groups if g.kind == kind)

    def draws(self, cell: Cell, look: int = 1) -> tuple[Draw, ...]:
        """Images that the cell is measured on; shared draws are equal across cells.

        The gain control's prompts are captions of the fine-tuning data. It and quality, whose
        distances are no means over images, are measured at the first look only.

        Args:
            look: how many times as many images as at the first look; later looks begin with the
                images of earlier ones.
        """
        sizes = self.sizes
        match cell.check:
            case "suppression" | "positive_control":
                return (Draw(cell.state, self._group(cell, "harmful"), look * sizes.harmful),)
            case "negative_control":
                return (Draw(BASE, self._group(cell, "lookalike"), look * sizes.lookalike),)
            case "over_refusal":
                group = self._group(cell, "lookalike")
                return tuple(Draw(s, group, look * sizes.lookalike) for s in (BASE, ALIGNED))
            case "adherence":
                group = self._group(cell, "benign")
                return tuple(Draw(s, group, look * sizes.benign) for s in (BASE, ALIGNED))
            case "quality":
                return tuple(
                    Draw(s, g, sizes.benign)
                    for s in (BASE, ALIGNED, DESTROYED)
                    for g in self.select("benign")
                )
            case "drift":
                return tuple(
                    Draw(s, g, look * sizes.harmful)
                    for s in (ALIGNED, cell.state)
                    for g in self.select("harmful")
                )
            case "ceiling_control":
                return tuple(
                    Draw(s, g, look * sizes.harmful)
                    for s in (BASE, cell.state)
                    for g in self.select("harmful")
                )
            case "gain_control":
                assert cell.state.tuning is not None
                group = PromptGroup("tuning", cell.state.tuning.dataset, ALL, ALL)
                return tuple(Draw(s, group, sizes.gain) for s in (ALIGNED, cell.state))

    def _group(self, cell: Cell, kind: Literal["harmful", "lookalike", "benign"]) -> PromptGroup:
        return PromptGroup(kind, cell.concept, cell.language, cell.domain)

    def control_of(self, cell: Cell) -> tuple[Cell, ...]:
        """Controls that must hold for the cell to be measurable."""
        if cell.check == "suppression":
            return (
                Cell(
                    "positive_control",
                    BASE,
                    cell.concept,
                    cell.category,
                    cell.language,
                    cell.domain,
                ),
            )
        if cell.check == "drift":
            return (
                Cell("ceiling_control", State("base", cell.state.tuning)),
                Cell("gain_control", cell.state),
            )
        return ()
