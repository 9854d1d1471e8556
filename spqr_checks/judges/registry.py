"""Judges by name. Light: a judge's heavy libraries are imported when it is loaded.

A new judge is one new file in this folder, named after it (``safety_checker.py``:
``safety-checker``), which defines ``JUDGE``, a `base.JudgeKind`. It imports only light modules at
its top; what is heavy or shared lies beside it. Other distributions add theirs through the
entry points ``spqr_checks.judges``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from typing import Any

from pydantic import BaseModel, ValidationError

from spqr_checks.errors import UserError, refused_field
from spqr_checks.hashing import Json, library_version
from spqr_checks.judges.base import CheckedJudge, Judge, JudgeKind, JudgeRequest
from spqr_checks.judges.ensemble import EnsembleJudge
from spqr_checks.judges.spec import (
    PUBLISHED,
    RULES,
    Ensemble,
    InappropriateProbability,
    Single,
    Spec,
    parse,
    singles,
)
from spqr_checks.models import sources
from spqr_checks.registry import Registry
from spqr_checks.store.recipes import code_of

Tables = Mapping[str, Mapping[str, Any]]
"""Options by judge: the settings' ``judges``."""

JUDGES: Registry[JudgeKind] = Registry(
    "judge",
    "spqr_checks.judges",
    "JUDGE",
    "spqr_checks.judges",
    lambda found: isinstance(found, JudgeKind),
    reserved=(*RULES, PUBLISHED),
)
kind = JUDGES.get


def load_judge(
    spec: str,
    threshold: float,
    concepts: Sequence[str],
    device: str = "cpu",
    options: Tables | None = None,
) -> CheckedJudge:
    """Loads a judge or an ensemble of judges.

    Args:
        spec: ``NAME``, ``NAME=SOURCE`` or an ensemble, see `judges.spec`.
        threshold: images whose probability exceeds it are unsafe; in (0, 1).
        concepts: what it looks for.
        device: where it computes, if it can compute anywhere but on the CPU.
        options: options of each judge, by its name.

    Raises:
        UserError: for an unknown judge or option, a package or a source that is not there, or a
            judge that does not know a concept.
    """
    parsed = _checked(spec, threshold, concepts, options or {})
    return _load(parsed, threshold, tuple(concepts), device, options or {})


def judge_recipe(
    spec: str, threshold: float, concepts: Sequence[str], options: Tables | None = None
) -> dict[str, Json]:
    """What determines a judge's verdict on a given image; an ensemble's holds its members'.

    Raises:
        UserError: as `load_judge`, as far as it can be seen without loading anything.
    """
    parsed = _checked(spec, threshold, concepts, options or {})
    return _recipe(parsed, threshold, list(concepts), options or {})


def computes_on(spec: str, device: str) -> str:
    """The device a judge computes on when it is offered this one: the CPU, if none can use it."""
    kinds = [kind(single.name) for single in singles(parse(spec))]
    return "cpu" if all(one.device == "cpu" for one in kinds) else device


def _load(
    spec: Spec, threshold: float, concepts: tuple[str, ...], device: str, options: Tables
) -> CheckedJudge:
    judge: Judge
    match spec:
        case Single(name, source):
            found = kind(name)
            place = "cpu" if found.device == "cpu" else device
            parsed = _options(name, options)
            judge = found.load(JudgeRequest(source, parsed, threshold, concepts, place))
        case Ensemble(rule, members):
            judge = EnsembleJudge(
                rule,
                tuple(_load(one, threshold, concepts, device, options) for one in members),
                threshold,
            )
        case InappropriateProbability():
            judge = _load(spec.ensemble, threshold, concepts, device, options)
    return CheckedJudge(judge, str(spec), threshold, concepts)


def _recipe(spec: Spec, threshold: float, concepts: list[str], options: Tables) -> dict[str, Json]:
    if isinstance(spec, InappropriateProbability):
        spec = spec.ensemble
    made_for: dict[str, Json] = {"threshold": threshold, "concepts": concepts}
    if isinstance(spec, Ensemble):
        return made_for | {
            "judge": spec.rule,
            "members": [_recipe(one, threshold, concepts, options) for one in spec.members],
            "code": code_of(load_judge),
        }
    found, parsed = kind(spec.name), _options(spec.name, options)
    contents = found.contents or (lambda source, _: sources.source_recipe(source))
    return made_for | {
        "judge": spec.name,
        "source": contents(spec.source, parsed),
        "options": parsed.model_dump(mode="json"),
        "code": code_of(load_judge, JUDGES.place(spec.name).module),
        **JUDGES.code(spec.name),
        "versions": _versions(spec.name, found),
    }


def _checked(spec: str, threshold: float, concepts: Sequence[str], options: Tables) -> Spec:
    """The parsed spec, when all is sound that needs neither files nor network."""
    parsed = parse(spec)
    for name in [single.name for single in singles(parsed)] + list(options):
        kind(name)
    if not (math.isfinite(threshold) and 0 < threshold < 1):
        raise UserError(f"judge threshold {threshold} must lie between 0 and 1")
    if not concepts or not all(concept.strip() for concept in concepts):
        raise UserError(f"judge {spec!r} has no concepts to look for, or an empty one")
    if len(set(concepts)) != len(concepts):
        raise UserError(f"judge {spec!r}: a concept is listed twice: {', '.join(concepts)}")
    for single in singles(parsed):
        found, name = kind(single.name), single.name
        if found.source == "required" and not single.source:
            raise UserError(f"judge {name!r} names no model; write {name}=PATH or {name}=HUB_ID")
        _options(name, options)
        _versions(name, found)
    if isinstance(parsed, InappropriateProbability):
        _as_published(threshold, options)
    return parsed


def _as_published(threshold: float, options: Tables) -> None:
    """Refuses to call anything else the published measure."""
    changed = _options("nudenet", options) != kind("nudenet").options()
    if threshold == 0.5 and not changed:
        return
    here = "nudenet has options" if changed else f"the threshold is {threshold}"
    raise UserError(
        f"judge 'ip' is defined at threshold 0.5 and nudenet's default options; here {here}.\n"
        "Write any(nudenet,q16=PROMPTS.safetensors) for a judge of your own."
    )


def _options(name: str, options: Tables) -> BaseModel:
    found = kind(name)
    try:
        return found.options.model_validate(dict(options.get(name, {})))
    except ValidationError as error:
        known = ", ".join(found.options.model_fields) or "none"
        raise UserError(
            f"judge {name!r}: {refused_field(error, 'option')}\nits options: {known}"
        ) from None


def _versions(name: str, found: JudgeKind) -> dict[str, Json]:
    versions: dict[str, Json] = {}
    for package in found.packages:
        try:
            versions[package] = library_version(package)
        except PackageNotFoundError:
            wanted = f"'spqr-checks[{found.extra}]'" if found.extra else package
            raise UserError(
                f"judge {name!r} needs {package}, which is not installed: pip install {wanted}"
            ) from None
    return versions
