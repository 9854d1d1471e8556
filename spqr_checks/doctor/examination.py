"""The whole examination. Imports the libraries that runs need, since only that shows they work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spqr_checks import known_good
from spqr_checks.doctor.choices import choices
from spqr_checks.doctor.findings import Diagnosis, Package
from spqr_checks.doctor.machine import machine
from spqr_checks.doctor.packages import default_problems, import_problem, requirements
from spqr_checks.errors import UserError
from spqr_checks.models import sources

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


def diagnose(store: Path) -> Diagnosis:
    """Examines this machine; builds, downloads and writes nothing.

    Args:
        store: the folder of artefacts that a run would use.
    """
    _hush()
    packages = requirements()
    found, problems = machine(store)
    broken = default_problems(packages)
    if not broken:  # else these would only say the same again
        broken = [problem for module in _PATH if (problem := import_problem(module))]
    problems = [*broken, *problems]
    for source in _WEIGHTS:
        try:
            sources.resolve(source)
        except UserError as error:
            problems.append(str(error).replace("\n", " "))
    return Diagnosis(
        tuple(packages), tuple(choices()), found, tuple(problems), tuple(_versions(packages))
    )


def _versions(packages: Iterable[Package]) -> list[str]:
    names = dict.fromkeys([*known_good.LIBRARIES, *(one.name for one in packages)])
    other = known_good.remark(known_good.differing(names))
    return [*known_good.failing(), *([other] if other else [])]


def _hush() -> None:
    """Libraries' advice is not what was asked for."""
    if not import_problem("transformers"):
        from transformers.utils import logging

        logging.set_verbosity_error()
