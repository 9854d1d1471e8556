"""How a metric is named: ``NAME`` or ``NAME=SOURCE``. Light."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from spqr_checks.errors import UserError

RUNS_CLIP = "clip"
"""The metric that works without a source: the run's own CLIP is taken."""
_NOT_METRICS = {"__init__", "base", "registry"}


class Named(NamedTuple):
    """A metric and where its model comes from."""

    name: str
    source: str


def names_in(folder: Path) -> tuple[str, ...]:
    """The metrics of a folder: one file each."""
    found = {file.stem for file in folder.glob("*.py")}
    return tuple(sorted(found - _NOT_METRICS))


def parse(setting: str, spec: str, names: Sequence[str], clip: str) -> Named:
    """The metric that a setting names; nothing is looked up outside of these arguments.

    Args:
        setting: the setting's name, for messages.
        names: the metrics that there are.
        clip: the run's CLIP model, for ``clip`` without a source.

    Raises:
        UserError: for an unknown metric, or one without a source that needs it.
    """
    given, equals, source = (part.strip() for part in spec.partition("="))
    name = given.replace("-", "_")
    if name not in names:
        raise UserError(f"unknown {setting} {given!r}; there are: {', '.join(names)}")
    if name == RUNS_CLIP and not equals:
        if not clip:
            raise UserError(f"{setting} {spec!r} needs a CLIP model: set --spqr-clip")
        return Named(name, clip)
    if not source:
        raise UserError(f"{setting} {spec!r} names no model; write {given}=PATH or {given}=HUB_ID")
    return Named(name, source)
