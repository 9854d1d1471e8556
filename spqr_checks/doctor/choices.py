"""Which judges, metrics and families of models a run could use here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from spqr_checks.doctor.packages import first_cause, import_problem, problem_of
from spqr_checks.errors import UserError
from spqr_checks.known_good import installed
from spqr_checks.packages import how_to_install
from spqr_checks.registry import Registry

T = TypeVar("T")
_T5 = ("sentencepiece", "protobuf")
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Stable Diffusion 1.x, 2.x": ("StableDiffusionPipeline", ()),
    "Stable Diffusion XL": ("StableDiffusionXLPipeline", ()),
    "Stable Diffusion 3": ("StableDiffusion3Pipeline", _T5),
    "FLUX.1": ("FluxPipeline", _T5),
    "PixArt": ("PixArtSigmaPipeline", _T5),
}
"""Families that are tested: diffusers' class, and packages that their tokenizers may need."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Something that a run may be told to use.

    Attributes:
        kind: ``judge``, ``guard``, ``adherence``, ``features``, ``distance`` or ``models``.
        remedy: the command that makes it usable, or what stands in the way; empty if it is.
    """

    kind: str
    name: str
    usable: bool
    remedy: str


def choices() -> list[Choice]:
    """Every choice, usable or not."""
    return [*_registered(), *_families()]


def _registered() -> Iterator[Choice]:
    from spqr_checks.adaptations.registry import ADAPTATIONS
    from spqr_checks.alignment.registry import METHODS
    from spqr_checks.attacks.registry import ATTACKS
    from spqr_checks.finetuning.families.registry import FAMILIES
    from spqr_checks.generation.guidance.registry import GUIDANCES
    from spqr_checks.guards.registry import GUARDS
    from spqr_checks.judges.registry import JUDGES
    from spqr_checks.metrics.adherence import ADHERENCES
    from spqr_checks.metrics.distances import DISTANCES
    from spqr_checks.metrics.features import FEATURE_KINDS
    from spqr_checks.prompts.sources import FORMATS

    yield from _entries("guard", GUARDS, lambda kind: (kind.packages, None))
    yield from _entries("judge", JUDGES, lambda kind: (kind.packages, kind.extra))
    metrics: list[Registry[Any]] = [ADHERENCES, FEATURE_KINDS]
    for known in metrics:
        yield from _entries(known.what, known, lambda one: (one.needs.packages, one.needs.extra))
    yield from _entries("distance", DISTANCES, lambda _: (("numpy",), None))
    yield from _entries("method", METHODS, lambda _: (("torch", "diffusers", "peft"), None))
    yield from _entries("adaptation", ADAPTATIONS, lambda kind: (kind.packages, kind.extra))
    yield from _entries("attack", ATTACKS, lambda _: (("torch", "diffusers"), None))
    yield from _entries("guidance", GUIDANCES, lambda _: (("torch", "diffusers"), None))
    yield from _entries("format", FORMATS, lambda _: ((), None))
    # ours are listed as the models that they are for
    yield from _entries("family", FAMILIES, lambda _: ((), None), FAMILIES.added())


def _entries(
    kind: str,
    registry: Registry[T],
    needs: Callable[[T], tuple[Sequence[str], str | None]],
    names: Sequence[str] | None = None,
) -> Iterator[Choice]:
    for name in registry.names() if names is None else names:
        try:
            packages, extra = needs(registry.get(name))
        except UserError as error:  # of another distribution, and it says what to do
            yield Choice(kind, name, False, str(error).splitlines()[0])
        except Exception as error:  # its file cannot even be imported
            yield Choice(kind, name, False, f"{type(error).__name__}: {error}")
        else:
            yield _choice(kind, name, packages, extra)


def _families() -> Iterator[Choice]:
    # transformers imports torchvision where it is, and nothing of a pipeline where it is broken
    libraries = ("torch", "transformers", "diffusers", *filter(installed, ("torchvision",)))
    for name, (class_name, packages) in FAMILIES.items():
        found = _choice("models", name, (*libraries, *packages), None)
        if found.usable and (missing := _missing_class(class_name)):
            found = Choice("models", name, False, missing)
        yield found


def _choice(kind: str, name: str, packages: Sequence[str], extra: str | None) -> Choice:
    problems = {package: problem for package in packages if (problem := problem_of(package))}
    if not problems:
        return Choice(kind, name, True, "")
    absent = [package for package, problem in problems.items() if problem == "not installed"]
    if len(absent) < len(problems):
        broken = next(problem for package, problem in problems.items() if package not in absent)
        return Choice(kind, name, False, broken)
    return Choice(kind, name, False, how_to_install(*absent, extra=extra))


def _missing_class(name: str) -> str:
    if problem := import_problem("diffusers"):
        return problem
    import diffusers

    try:
        getattr(diffusers, name)
    except Exception as error:  # libraries raise what they like when a part of them is broken
        return f"pip install --upgrade diffusers ({first_cause(error)})"
    return ""
