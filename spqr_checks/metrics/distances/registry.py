"""Distances by name. Light: imports no torch."""

from __future__ import annotations

from importlib import import_module

from spqr_checks.errors import UserError
from spqr_checks.metrics.distances.base import Distance

NAMES = ("cmmd", "fid", "kid")


def distance_named(name: str) -> Distance:
    """The distance in the file of that name.

    Raises:
        UserError: there is none.
    """
    if name not in NAMES:
        raise UserError(f"unknown distance {name!r}; there are: {', '.join(NAMES)}")
    distance: Distance = import_module(f"spqr_checks.metrics.distances.{name}").DISTANCE
    return distance
