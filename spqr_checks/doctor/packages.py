"""Which packages are installed, in which version, and whether they can be imported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from spqr_checks.known_good import installed
from spqr_checks.packages import OURS

DEFAULT = "default"
_NOT_FOR_RUNS = {"dev"}
"""Extras for work on this package."""


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


@lru_cache
def import_problem(module: str) -> str:
    """Why a module cannot be imported; empty if it can. It is really imported, once."""
    try:
        import_module(module)
    except Exception as error:  # a broken installation raises anything
        return f"import {module}: {first_cause(error)}"
    return ""


def first_cause(error: BaseException) -> str:
    """What an error was raised from, one line: lazy importers only say what they could not do."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def problem_of(name: str) -> str:
    """Why a distribution cannot be used; empty if it can."""
    if installed(name) is None:
        return "not installed"
    found = (import_problem(module) for module in _modules_of(name))
    return next((problem for problem in found if problem), "")


def torchvision_problem() -> str:
    """That an installed torchvision cannot be imported, and the remedy; empty if all is well.

    No run of the embedded world needs it, but transformers imports it wherever it is installed. Its
    binary fits one build of torch only: PyPI's does not fit a CPU build.
    """
    has, torch = installed("torchvision"), installed("torch")
    if has is None or torch is None or import_problem("torch"):
        return ""
    if not (problem := import_problem("torchvision")):
        return ""
    return (
        f"torchvision {has} does not fit torch {torch} ({problem}): have both from one index (pip "
        f"install --force-reinstall torch=={Version(torch).public} torchvision), or pip uninstall "
        "torchvision, which only the extras vlm and open-clip need"
    )


def requirements() -> list[Package]:
    """What this package asks for, by default and for its extras, each as it is found here."""
    found = []
    for text in requires(OURS) or []:
        requirement = Requirement(text)
        extras = set(re.findall(r"extra == \W(.+?)[\"']", str(requirement.marker or "")))
        if requirement.marker and not extras and not requirement.marker.evaluate():
            continue  # for another Python or system
        for extra in sorted(extras - _NOT_FOR_RUNS) if extras else [DEFAULT]:
            has = installed(requirement.name)
            problem = problem_of(requirement.name) if extra == DEFAULT or has else ""
            if has and not problem and not requirement.specifier.contains(has, prereleases=True):
                problem = f"{requirement.specifier} is needed"
            found.append(Package(requirement.name, has, extra, problem))
    return sorted(found, key=lambda one: (one.needed_by != DEFAULT, one.needed_by, one.name))


def default_problems(found: Iterable[Package]) -> list[str]:
    """Of packages that every run needs."""
    return [
        f"{one.name}: {one.problem}: pip install --upgrade {OURS}"
        for one in found
        if one.needed_by == DEFAULT and one.problem
    ]


def _modules_of(name: str) -> list[str]:
    """Top-level modules of a distribution, without private ones and scripts' helpers."""
    named = {module for module, owner in _owners() if owner == canonicalize_name(name)}
    return sorted(module for module in named if module.isidentifier() and module[0] != "_")


@lru_cache
def _owners() -> list[tuple[str, str]]:
    """Top-level modules with the distributions that have them."""
    found = packages_distributions().items()
    return [(module, canonicalize_name(name)) for module, names in found for name in names]
