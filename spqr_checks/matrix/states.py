"""Weights under test, and the parts that they play in a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["base", "aligned", "destroyed"]
Role = Literal["base", "aligned", "destroyed", "tuned base", "tuned"]
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


def is_tuned(role: Role) -> bool:
    """Whether there is one such state for every fine-tuning."""
    return role in ("tuned base", "tuned")


def state_of(role: Role, tuning: Tuning | None) -> State:
    """The state that plays the role. Raises ValueError for a fine-tuned one without fine-tuning."""
    if is_tuned(role) and tuning is None:
        raise ValueError(f"the state {role!r} needs a fine-tuning")
    match role:
        case "tuned base":
            return State("base", tuning)
        case "tuned":
            return State("aligned", tuning)
        case _:
            return State(role)
