"""Distances by name. Light: imports no torch."""

from __future__ import annotations

from importlib import import_module

from spqr_checks.errors import UserError
from spqr_checks.metrics.distances.base import Distance

NAMES = ("cmmd", "fid", "kid")


def distance_named(name: str) -> Distance:
    """The distance in the file of that name. Raises UserError as `module_of`."""
    distance: Distance = import_module(module_of(name)).DISTANCE
    return distance


def module_of(name: str) -> str:
    """Full name of the module of a distance. Raises UserError if there is none."""
    if name not in NAMES:
        raise UserError(f"unknown distance {name!r}; there are: {', '.join(NAMES)}")
    return f"{__package__}.{name}"
