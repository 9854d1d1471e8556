"""The whole examination. Imports the libraries that runs need, since only that shows they work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spqr_checks import known_good
from spqr_checks.doctor.choices import Choice, choices
from spqr_checks.doctor.machine import machine
from spqr_checks.doctor.packages import (
    Package,
    default_problems,
    import_problem,
    requirements,
    torchvision_problem,
)
from spqr_checks.errors import UserError
from spqr_checks.models import sources
from spqr_checks.preflight import preflight
from spqr_checks.settings import Settings, load_settings

_PATH = (
    "spqr_checks.models.pipelines",
    "spqr_checks.generation.sampling",
    "spqr_checks.metrics.clip",
    "spqr_checks.judges.classifier",
    "spqr_checks.finetuning.trainer",
    "spqr_checks.pytest_plugin.plugin",
)
"""What a run of the embedded world imports first of each step."""
_WEIGHTS = ("miniature", "miniature:clip", "miniature:classifier")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found.

    Attributes:
        problems: why the default path does not work, each with what to do.
        refused: why a run under the settings of this folder would not begin; nothing is known of
            that where there are problems.
        versions: of the installed ones, what this release was not tested with, and combinations
            that are known to fail, each with its remedy. Neither stops the default path.
    """

    packages: tuple[Package, ...]
    choices: tuple[Choice, ...]
    machine: dict[str, Any]
    problems: tuple[str, ...]
    refused: tuple[str, ...]
    versions: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether `spqr run` would begin here."""
        return not self.problems and not self.refused


def diagnose(store: str = "") -> Diagnosis:
    """Examines this machine and the settings of this folder; draws, trains and writes nothing.

    What the settings name on the Hub is fetched, as by every command.

    Args:
        store: the folder of artefacts that a run would use; that of the settings if not given.
    """
    settings, refused = None, list[str]()
    try:
        settings = load_settings(Path.cwd(), {"store": store} if store else {})
    except UserError as error:
        refused += error.problems
    if not import_problem("transformers"):  # its advice is not what was asked for
        from transformers.utils import logging

        logging.set_verbosity_error()
    packages = requirements()
    found, unwritable = machine(Path(settings.store if settings else store or Settings().store))
    broken = default_problems(packages)
    if torchvision := torchvision_problem():
        broken = [torchvision]  # of which the others come, and theirs is no remedy
    elif not broken:  # else these would only say the same again
        broken = [problem for module in _PATH if (problem := import_problem(module))]
    broken += _missing_weights()
    if settings and not broken:
        try:
            preflight(settings)
        except UserError as error:
            refused += error.problems
    refused = [r for r in refused if not any(problem in _line(r) for problem in unwritable)]
    return Diagnosis(
        tuple(packages),
        tuple(choices()),
        found,
        (*broken, *unwritable),
        tuple(map(_line, refused)),
        tuple(_versions(packages)),
    )


def _missing_weights() -> list[str]:
    found = []
    for source in _WEIGHTS:
        try:
            sources.resolve(source)
        except UserError as error:
            found.append(_line(str(error)))
    return found


def _line(problem: str) -> str:
    return problem.replace("\n", " ")


def _versions(packages: Iterable[Package]) -> list[str]:
    names = dict.fromkeys([*known_good.LIBRARIES, *(one.name for one in packages)])
    other = known_good.remark(known_good.differing(names))
    return [*known_good.failing(), *([other] if other else [])]
