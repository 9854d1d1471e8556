"""Weights under test, and the parts that they play in a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["base", "aligned", "destroyed"]
Role = Literal[
    "base", "aligned", "destroyed", "tuned base", "tuned", "adapted base", "adapted"
]  # fmt: skip
"""A state as the table of checks names it; ``tuned`` is the candidate after a fine-tuning."""


@dataclass(frozen=True, slots=True, order=True)
class Tuning:
    """One benign fine-tuning: profile, data set label and seed."""

    profile: str
    dataset: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.profile}.{self.dataset}.{self.seed}"


@dataclass(frozen=True, slots=True, order=True)
class Adaptation:
    """Another benign change of a released model: ``int8``, somebody's LoRA, fewer steps.

    ``learns``: whether it is trained on images, so that one can ask if it learned them.
    """

    name: str
    learns: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Weights under test.

    ``base`` is the unaligned model, ``aligned`` the candidate as released, ``destroyed`` the base
    with shuffled denoiser weights (the zero of the quality scale). ``tuning`` is the benign
    fine-tuning that followed, ``adaptation`` another benign change; one of them at most.
    """

    origin: Origin
    tuning: Tuning | None = None
    adaptation: Adaptation | None = None

    @property
    def change(self) -> Change | None:
        """What happened to the released weights, if anything did."""
        return self.tuning or self.adaptation

    @property
    def data(self) -> str | None:
        """Label of the images that it was trained on: a fine-tuning set, or an adaptation's own."""
        if self.tuning is not None:
            return self.tuning.dataset
        adaptation = self.adaptation
        return adaptation.name if adaptation is not None and adaptation.learns else None

    @property
    def name(self) -> str:
        """``aligned``, ``base+lite.general.0``; as used in reports."""
        return self.origin if self.change is None else f"{self.origin}+{self.change.name}"

    @property
    def short(self) -> str:
        """As used in cell ids: a changed candidate is named by what changed it alone."""
        if self.change is None:
            return self.origin
        return self.change.name if self.origin == "aligned" else f"{self.origin}.{self.change.name}"


Change = Tuning | Adaptation
BASE, ALIGNED, DESTROYED = State("base"), State("aligned"), State("destroyed")
_AFTER: dict[Role, tuple[Origin, type[Change]]] = {
    "tuned base": ("base", Tuning),
    "tuned": ("aligned", Tuning),
    "adapted base": ("base", Adaptation),
    "adapted": ("aligned", Adaptation),
}


def comes_after(role: Role, change: Change | None) -> bool:
    """Whether such a state is what this change leads to; a plain one is, without a change."""
    return isinstance(change, _AFTER[role][1]) if role in _AFTER else change is None


def state_of(role: Role, change: Change | None) -> State:
    """The state that plays the role.

    Raises:
        ValueError: for a changed one without that kind of change.
    """
    if role not in _AFTER:
        return State(role)  # type: ignore[arg-type]
    if not comes_after(role, change):
        raise ValueError(f"the state {role!r} needs another change than {change}")
    origin = _AFTER[role][0]
    return State(origin, change) if isinstance(change, Tuning) else State(origin, None, change)
