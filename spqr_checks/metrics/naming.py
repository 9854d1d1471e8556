"""How a metric is named: ``NAME`` or ``NAME=SOURCE``. Light."""

from __future__ import annotations

from typing import Any, NamedTuple

from spqr_checks.errors import UserError
from spqr_checks.registry import Registry

RUNS_CLIP = "clip"
"""The metric that works without a source: the run's own CLIP is taken."""


class Named(NamedTuple):
    """A metric and where its model comes from."""

    name: str
    source: str


def parse(metrics: Registry[Any], spec: str, clip: str) -> Named:
    """The metric that a setting names; none is imported.

    Args:
        metrics: those that there are.
        clip: the run's CLIP model, for ``clip`` without a source.

    Raises:
        UserError: for an unknown metric, or one without a source that needs it.
    """
    given, equals, source = (part.strip() for part in spec.partition("="))
    setting, name = metrics.what, given.replace("-", "_")
    metrics.place(name)
    if name == RUNS_CLIP and not equals:
        if not clip:
            raise UserError(f"{setting} {spec!r} needs a CLIP model: set --spqr-clip")
        return Named(name, clip)
    if not source:
        raise UserError(f"{setting} {spec!r} names no model; write {given}=PATH or {given}=HUB_ID")
    return Named(name, source)
