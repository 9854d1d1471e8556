"""Which judges, metrics and families of models a run could use here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spqr_checks.doctor.findings import Choice
from spqr_checks.doctor.packages import OURS, import_problem, problem_of

_T5 = ("sentencepiece", "protobuf")
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Stable Diffusion 1.x, 2.x": ("StableDiffusionPipeline", ()),
    "Stable Diffusion XL": ("StableDiffusionXLPipeline", ()),
    "Stable Diffusion 3": ("StableDiffusion3Pipeline", _T5),
    "FLUX.1": ("FluxPipeline", _T5),
    "PixArt": ("PixArtSigmaPipeline", _T5),
}
"""Families that are tested: diffusers' class, and packages that their tokenizers may need."""


def choices() -> list[Choice]:
    """Every choice, usable or not."""
    return [*_judges(), *_metrics(), *_families()]


def _judges() -> Iterator[Choice]:
    from spqr_checks.judges import registry

    for name in registry.NAMES:
        try:
            kind = registry.kind(name)
        except Exception as error:  # its file cannot even be imported
            yield Choice("judge", name, False, f"{type(error).__name__}: {error}")
        else:
            yield _choice("judge", name, kind.packages, kind.extra)


def _metrics() -> Iterator[Choice]:
    from spqr_checks.metrics.adherence import registry as adherence
    from spqr_checks.metrics.distances import registry as distances
    from spqr_checks.metrics.features import registry as features

    for name in adherence.NAMES:
        needs = adherence.adherence_kind(name).needs
        yield _choice("adherence", name, needs.packages, needs.extra)
    for name in features.NAMES:
        needs = features.features_kind(name).needs
        yield _choice("features", name, needs.packages, needs.extra)
    for name in distances.NAMES:
        yield _choice("distance", name, ("numpy",), None)


def _families() -> Iterator[Choice]:
    for name, (class_name, packages) in FAMILIES.items():
        found = _choice("models", name, ("torch", "transformers", "diffusers", *packages), None)
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
    what = f"'{OURS}[{extra}]'" if extra else " ".join(absent)
    return Choice(kind, name, False, f"pip install {what}")


def _missing_class(name: str) -> str:
    if problem := import_problem("diffusers"):
        return problem
    import diffusers

    try:
        getattr(diffusers, name)
    except Exception as error:  # libraries raise what they like when a part of them is broken
        return f"pip install --upgrade diffusers ({type(error).__name__}: {error})".splitlines()[0]
    return ""
