"""One measured assertion: a check in one place and state."""

from __future__ import annotations

from dataclasses import dataclass

from spqr_checks.matrix.axes import AXES, Axis
from spqr_checks.matrix.checks import CHECKS, Check, CheckRow
from spqr_checks.matrix.states import ALIGNED, State
from spqr_checks.prompts.prompt import ALL


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
