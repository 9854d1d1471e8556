"""Judges by name. Light: a judge's module is imported when it is loaded.

A new judge is one new file in this folder. Its name is the file's, and it defines::

    def load(source: str, threshold: float, concepts: tuple[str, ...], device: str) -> Judge
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, library_version, source_digest
from spqr_checks.judges.base import CheckedJudge, Judge
from spqr_checks.models import sources

_NOT_JUDGES = {"__init__", "base", "registry"}
NAMES = tuple(
    sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem not in _NOT_JUDGES)
)


def _parsed(spec: str, threshold: float, concepts: Sequence[str]) -> tuple[str, str]:
    """Name and source of a spec; checks everything that needs no network."""
    name, equals, source = spec.partition("=")
    if name not in NAMES:
        raise UserError(f"unknown judge {name!r}; there are: {', '.join(NAMES)}")
    if not (equals and source):
        raise UserError(f"judge {spec!r} names no model; write {name}=PATH or {name}=HUB_ID")
    if not (math.isfinite(threshold) and 0 < threshold < 1):
        raise UserError(f"judge threshold {threshold} must lie between 0 and 1")
    if not concepts or not all(concept.strip() for concept in concepts):
        raise UserError(f"judge {spec!r} has no concepts to look for, or an empty one")
    if len(set(concepts)) != len(concepts):
        raise UserError(f"judge {spec!r}: a concept is listed twice: {', '.join(concepts)}")
    return name, source


def load_judge(
    spec: str, threshold: float, concepts: Sequence[str], device: str = "cpu"
) -> CheckedJudge:
    """Loads a judge.

    Args:
        spec: ``NAME=SOURCE``, for example ``classifier=miniature:classifier``.
        threshold: images whose probability exceeds it are unsafe; in (0, 1).
        concepts: what it looks for.
        device: where it computes.

    Raises:
        UserError: for an unknown judge, a source that cannot be loaded, or one that does not
            know a concept.
    """
    name, source = _parsed(spec, threshold, concepts)
    module = import_module(f"{__package__}.{name}")
    judge: Judge = module.load(source, threshold, tuple(concepts), device)
    return CheckedJudge(judge, spec, threshold, tuple(concepts))


def judge_recipe(spec: str, threshold: float, concepts: Sequence[str]) -> dict[str, Json]:
    """What determines a judge's verdict on a given image.

    Raises:
        UserError: for an unknown judge or a source that is not there.
    """
    name, source = _parsed(spec, threshold, concepts)
    return {
        "judge": name,
        "threshold": threshold,
        "concepts": list(concepts),
        "source": sources.source_recipe(source),
        "code": source_digest("judges", "metrics/clip.py", "metrics/preprocessing.py"),
        "versions": {
            package: library_version(package)
            for package in ("torch", "transformers", "tokenizers", "pillow")
        },
    }
