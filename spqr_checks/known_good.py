"""The known-good set: versions with which all tests passed, and what is known to fail. Light.

``known_good.txt`` is the constraint file that ``make lock`` writes and ``make test`` installs from.
A run with other versions is no error: its recipes name them, and its scorecard is judged alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FILE = Path(__file__).with_name("known_good.txt")
LIBRARIES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "scipy",
    "pillow",
    "pytest",
    "pytest-xdist",
)
"""What images, weights, numbers and the run itself may depend on."""

_FAILING = (
    (
        "transformers>=5.24",
        "peft<0.22",
        "transformers refuses to attach adapters to a text encoder",
        "pip install 'transformers<5.24'",
    ),
)
"""Combinations that fail: all requirements but the last two texts, what fails and the remedy."""


@cache
def known_good() -> dict[str, str]:
    """Name and version of every distribution in the set, for this Python and system."""
    from packaging.requirements import Requirement

    found = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                (pinned,) = requirement.specifier
                found[requirement.name] = pinned.version
    return found


def differing(names: Iterable[str] = LIBRARIES) -> dict[str, tuple[str, str]]:
    """Of these, the installed ones of another major or minor version: (installed, known good)."""
    from packaging.version import Version

    found = {}
    for name in names:
        has, known = installed(name), known_good().get(name)
        if has and known and Version(has).release[:2] != Version(known).release[:2]:
            found[name] = has, known
    return found


def remark(found: dict[str, tuple[str, str]]) -> str:
    """What `differing` found, for people; empty if nothing."""
    if not found:
        return ""
    said = ", ".join(f"{name} {has} (tested: {known})" for name, (has, known) in found.items())
    return f"not the versions that this release was tested with: {said}"


def failing() -> list[str]:
    """The installed combinations that are known to fail, each with its remedy."""
    from packaging.requirements import Requirement

    found = []
    for *texts, what, remedy in _FAILING:
        requirements = [Requirement(text) for text in texts]
        versions = [installed(requirement.name) for requirement in requirements]
        if all(
            has and requirement.specifier.contains(has, prereleases=True)
            for requirement, has in zip(requirements, versions, strict=True)
        ):
            pairs = zip(requirements, versions, strict=True)
            named = " with ".join(f"{requirement.name} {has}" for requirement, has in pairs)
            found.append(f"{named}: {what}: {remedy}")
    return found


def installed(name: str) -> str | None:
    """The version of a distribution, None if it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
