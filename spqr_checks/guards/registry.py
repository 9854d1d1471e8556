"""Guards by name. Light: a guard's heavy libraries are imported when it is loaded.

A new guard is one new file in this folder, named after it (``latent_guard.py``: ``latent-guard``),
which defines ``GUARD``, a `base.GuardKind`. Other distributions add theirs through the entry
points ``spqr_checks.guards``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from typing import Any, NamedTuple

from pydantic import ValidationError

from spqr_checks.errors import UserError, refused_field
from spqr_checks.guards.base import CheckedGuard, GuardKind, GuardOptions, GuardRequest
from spqr_checks.hashing import Json, library_version
from spqr_checks.packages import missing
from spqr_checks.registry import Registry
from spqr_checks.source_code import code_of

Tables = Mapping[str, Mapping[str, Any]]
"""Options by guard: the settings' ``guards``."""

GUARDS: Registry[GuardKind] = Registry(
    "guard",
    "spqr_checks.guards",
    "GUARD",
    "spqr_checks.guards",
    lambda found: isinstance(found, GuardKind),
)


class _Named(NamedTuple):
    name: str
    source: str
    kind: GuardKind
    options: GuardOptions


def load_guards(
    specs: Sequence[str], concepts: Sequence[str], device: str, tables: Tables
) -> list[CheckedGuard]:
    """The guards of a run; a prompt is blocked that any of them blocks.

    Args:
        specs: each ``NAME`` or ``NAME=SOURCE``.
        concepts: names of what the model must not draw.
        device: where they compute.
        tables: options of each guard, by its name.

    Raises:
        UserError: for an unknown guard or option, and a source that is not there or unusable.
    """
    loaded = []
    for spec in specs:
        _, source, kind, options = _parsed(spec, tables)
        request = GuardRequest(source, options, tuple(concepts), device)
        loaded.append(CheckedGuard(kind.load(request), spec))
    return loaded


def guard_recipes(
    specs: Sequence[str], concepts: Sequence[str], tables: Tables, device: str = "cpu"
) -> list[dict[str, Json]]:
    """What determines the guards' answers to a given prompt.

    Args:
        device: where they compute, of which the kind counts.

    Raises:
        UserError: as `load_guards`, as far as it can be seen without loading anything.
    """
    for name in tables:
        GUARDS.get(name)
    kind = device.partition(":")[0]
    return [_recipe(_parsed(spec, tables), concepts) | {"device": kind} for spec in specs]


def parse(kind: GuardKind, name: str, given: Mapping[str, Any], training: bool = False) -> Any:
    """A guard's options, or those of its training. Raises UserError for what it does not take."""
    model = kind.training if training else kind.options
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        known = ", ".join(model.model_fields) or "none"
        raise UserError(
            f"guard {name!r}: {refused_field(error, 'option')}\nits options: {known}"
        ) from None


def _parsed(spec: str, tables: Tables) -> _Named:
    name, equals, source = (part.strip() for part in spec.partition("="))
    kind = GUARDS.get(name)
    if not source and (equals or kind.source == "required"):
        raise UserError(
            f"guard {name!r} names no folder; write {name}=DIR, which `spqr guard train {name} "
            "--out DIR` makes"
        )
    return _Named(name, source, kind, parse(kind, name, tables.get(name, {})))


def _recipe(named: _Named, concepts: Sequence[str]) -> dict[str, Json]:
    versions: dict[str, Json] = {}
    for package in named.kind.packages:
        try:
            versions[package] = library_version(package)
        except PackageNotFoundError:
            raise missing(f"guard {named.name!r}", package, extra=None) from None
    return {
        "guard": named.name,
        "source": named.kind.contents(named.source),
        "options": named.options.model_dump(mode="json"),
        "named": named.kind.named(named.options),
        "concepts": list(concepts),
        "code": code_of(load_guards, GUARDS.place(named.name).module),
        **GUARDS.code(named.name),
        "versions": versions,
    }
