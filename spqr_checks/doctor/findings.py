"""What an examination finds. Light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution that this package asks for.

    Attributes:
        version: None where it is not installed.
        needed_by: ``default`` or the extra that asks for it.
        problem: empty where all is well.
    """

    name: str
    version: str | None
    needed_by: str
    problem: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Something that a run may be told to use.

    Attributes:
        kind: ``judge``, ``adherence``, ``features``, ``distance`` or ``models``.
        remedy: the command that makes it usable, or what stands in the way; empty if it is.
    """

    kind: str
    name: str
    usable: bool
    remedy: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found.

    Attributes:
        problems: why the default path does not work, each with what to do.
        versions: of the installed ones, what this release was not tested with, and combinations
            that are known to fail, each with its remedy. Neither stops the default path.
    """

    packages: tuple[Package, ...]
    choices: tuple[Choice, ...]
    machine: dict[str, Any]
    problems: tuple[str, ...]
    versions: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether a run of the embedded world would work."""
        return not self.problems
