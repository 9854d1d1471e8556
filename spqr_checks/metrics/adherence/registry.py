"""Text-image adherence scores by name. Light: a score's model is loaded when it is asked.

A new score is one new file in this folder. Its name is the file's, and it defines ``ADHERENCE``,
a `base.AdherenceKind`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from spqr_checks.hashing import Json, digest
from spqr_checks.metrics.adherence.base import AdherenceKind, Scale, Scorer, checked
from spqr_checks.metrics.naming import parse
from spqr_checks.registry import Registry

if TYPE_CHECKING:
    from PIL.Image import Image

SETTING = "adherence"
ADHERENCES: Registry[AdherenceKind] = Registry(
    SETTING,
    "spqr_checks.metrics.adherence",
    "ADHERENCE",
    "spqr_checks.adherence",
    lambda found: isinstance(found, AdherenceKind),
    separator="_",
)
adherence_kind = ADHERENCES.get


def scale_of(spec: str, clip: str) -> Scale:
    """What the numbers of a score are. Raises UserError for an unknown one."""
    return adherence_kind(parse(ADHERENCES, spec, clip).name).scale


def adherence_recipe(spec: str, clip: str) -> dict[str, Json]:
    """What determines the scores of given images and prompts.

    Raises:
        UserError: for an unknown score, a source that is not there, or a missing package.
    """
    name, source = parse(ADHERENCES, spec, clip)
    return _recipe(name, source)


def _recipe(name: str, source: str) -> dict[str, Json]:
    kind = adherence_kind(name)
    recipe = kind.needs.recipe(f"{SETTING} {name}", source, adherence_scores, kind.load)
    return {**recipe, **ADHERENCES.code(name)}


def adherence_scores(
    images: Sequence[Image], prompts: Sequence[str], spec: str, clip: str, device: str = "cpu"
) -> list[float]:
    """How well each image follows its own prompt, in the scale of the score.

    Args:
        images: one per prompt.
        spec: ``NAME`` or ``NAME=SOURCE``.
        clip: the run's CLIP model, which ``clip`` without a source takes.
        device: where it computes.

    Raises:
        ValueError: if images and prompts differ in number.
        UserError: for an unknown score or a model that cannot be loaded.
        JudgeError: for a score that is missing, not finite or out of range.
    """
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images but {len(prompts)} prompts")
    name, source = parse(ADHERENCES, spec, clip)
    kind = adherence_kind(name)
    scorer = _loaded(name, source, digest(_recipe(name, source)), device)
    return checked(name, kind.scale, scorer.scores(images, prompts), len(images))


@lru_cache(maxsize=1)
def _loaded(name: str, source: str, content: str, device: str) -> Scorer:
    """``content`` is part of the key only: a changed directory is loaded anew."""
    return adherence_kind(name).load(source, device)
