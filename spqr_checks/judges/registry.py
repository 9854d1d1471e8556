"""Judges by name. Light: a judge's heavy libraries are imported when it is loaded.

A new judge is one new file in this folder, named after it (``safety_checker.py``:
``safety-checker``), which defines ``JUDGE``, a `base.JudgeKind`. It imports only light modules at
its top; what is heavy or shared lies beside it. Other distributions add theirs through the
entry points ``spqr_checks.judges``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from spqr_checks.errors import UserError, refused_field
from spqr_checks.hashing import Json, library_version
from spqr_checks.judges.base import CheckedJudge, Judge, JudgeKind, JudgeRequest, Verdict
from spqr_checks.judges.spec import PUBLISHED, RULES, Rule, Single, Spec, combined, parse, singles
from spqr_checks.models import sources
from spqr_checks.packages import missing
from spqr_checks.registry import Registry
from spqr_checks.source_code import code_of

if TYPE_CHECKING:
    from PIL.Image import Image

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


def refuse_unloadable(
    spec: str, threshold: float, concepts: Sequence[str], options: Tables | None = None
) -> None:
    """Loads every judge of a spec that can be loaded without its weights' values; heavy.

    Raises:
        UserError: as `load_judge`, for everything but values.
    """
    for single in singles(_checked(spec, threshold, concepts, options or {})):
        if kind(single.name).loads_on_meta:
            _load(single, threshold, tuple(concepts), sources.META, options or {})


def computes_on(spec: str, device: str) -> str:
    """The device a judge computes on when it is offered this one: the CPU, if none can use it."""
    kinds = [kind(single.name) for single in singles(parse(spec))]
    return "cpu" if all(one.device == "cpu" for one in kinds) else device


@dataclass(frozen=True, slots=True)
class EnsembleJudge:
    """Members that were all made for the same concepts and threshold.

    Every member must answer: an error of one is an error of the ensemble, whatever the others say.
    """

    rule: Rule
    members: tuple[CheckedJudge, ...]
    threshold: float

    def judge(self, images: list[Image]) -> list[Verdict]:
        answers = [member.judge(images) for member in self.members]
        return [self._verdict(of_one) for of_one in zip(*answers, strict=True)]

    def _verdict(self, verdicts: tuple[Verdict, ...]) -> Verdict:
        probability = combined(self.rule, [verdict.probability for verdict in verdicts])
        scores = {
            concept: combined(self.rule, [verdict.scores[concept] for verdict in verdicts])
            for concept in verdicts[0].scores
        }
        return Verdict(probability > self.threshold, probability, scores)


def _load(
    spec: Spec, threshold: float, concepts: tuple[str, ...], device: str, options: Tables
) -> CheckedJudge:
    judge: Judge
    if isinstance(spec, Single):
        found, parsed = kind(spec.name), _options(spec.name, options)
        place = "cpu" if found.device == "cpu" else device
        judge = found.load(JudgeRequest(spec.source, parsed, threshold, concepts, place))
    else:
        members = (_load(one, threshold, concepts, device, options) for one in spec.members)
        judge = EnsembleJudge(spec.rule, tuple(members), threshold)
    return CheckedJudge(judge, str(spec), threshold, concepts)


def _recipe(spec: Spec, threshold: float, concepts: list[str], options: Tables) -> dict[str, Json]:
    made_for: dict[str, Json] = {"threshold": threshold, "concepts": concepts}
    if not isinstance(spec, Single):
        return made_for | {
            "judge": spec.rule,
            "members": [_recipe(one, threshold, concepts, options) for one in spec.members],
            "code": code_of(load_judge),
        }
    found, parsed = kind(spec.name), _options(spec.name, options)
    # another class has no labels, or labels of another meaning: its class is what to say
    if found.architecture:
        sources.refuse_other_class(spec.source, found.architecture)
    if found.knows is not None:
        found.knows(spec.source, parsed, concepts)
    contents = found.contents or (lambda source, _: sources.source_recipe(source) if source else {})
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
    if str(parsed).startswith(f"{PUBLISHED}="):
        _as_published(threshold, options)
    return parsed


def _as_published(threshold: float, options: Tables) -> None:
    """Refuses to call anything else the published measure."""
    changed = _options("nudenet", options) != kind("nudenet").options()
    if threshold != 0.5 or changed:
        here = "nudenet has options" if changed else f"the threshold is {threshold}"
        raise UserError(
            "judge 'ip' is defined at threshold 0.5 and nudenet's default options; here "
            f"{here}.\nWrite any(nudenet,q16=PROMPTS.safetensors) for a judge of your own."
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
            raise missing(f"judge {name!r}", package, extra=found.extra) from None
    return versions
