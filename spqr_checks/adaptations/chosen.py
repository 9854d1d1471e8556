"""Adaptations from what the settings name: names, names with options, adapters' files. Light."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spqr_checks.adaptations.adapter import Adapter, Strength
from spqr_checks.adaptations.kind import AdaptationKind, adaptation_recipe
from spqr_checks.adaptations.registry import ADAPTATIONS
from spqr_checks.errors import UserError, refused_field

FILES = "adapters"
"""The table of options for adapters that the setting names as files."""
Tables = Mapping[str, Mapping[str, Any]]
_SAFE = re.compile(r"[^\w@+.=-]+")


class Community(BaseModel):
    """How adapters that are named as files are put on.

    Attributes:
        scales: every adapter is put on at each of these.
        pairs: whether also any two of them, both at the same scale.
        alpha: as ``adapter_alpha`` of the settings, for files that do not say it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scales: Annotated[tuple[Strength, ...], Field(min_length=1)] = (1.0,)
    pairs: bool = True
    alpha: str = ""


@dataclass(frozen=True)
class Named:
    """An adaptation of a run.

    Attributes:
        entry: the name of its kind in the registry.
    """

    entry: str
    kind: AdaptationKind

    def recipe(self) -> dict[str, Any]:
        """See `kind.adaptation_recipe`."""
        return adaptation_recipe(self.kind, ADAPTATIONS.code(self.entry))


def chosen(specs: Sequence[str], tables: Tables) -> dict[str, Named]:
    """The adaptations that a run names, by the names that their states bear.

    Args:
        specs: names of the registry or of tables, ``NAME:option=value:…``; or paths, patterns and
            Hub ids of LoRA files.
        tables: options by name; ``kind`` says which adaptation a table of another name is of.

    Raises:
        UserError: for unknown names and options, patterns without a file, and names given twice.
    """
    own = {name: table for name, table in tables.items() if name != FILES}
    for name, table in own.items():
        _made(name, table, {})
    community = _validated(Community, FILES, tables.get(FILES, {}))
    found: list[tuple[str, Named]] = []
    files: list[str] = []
    for spec in specs:
        name, *options = spec.split(":")
        if name in own or name in ADAPTATIONS.names() or not _names_files(spec):
            found.append(_named(name, options, own.get(name, {})))
        else:
            files += files_of(spec)
    found += _adapters(files, community)
    names = [name for name, _ in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(
            f"two adaptations are called {twice[0]!r}: rename one file, or give one options of "
            "its own in a table of another name"
        )
    return dict(found)


def _named(name: str, options: Sequence[str], table: Mapping[str, Any]) -> tuple[str, Named]:
    pairs = dict(_pair(name, option) for option in options)
    label = ".".join([name, *(f"{key}_{value}" for key, value in pairs.items())])
    return _SAFE.sub("_", label), _made(name, table, pairs)


def _pair(name: str, option: str) -> tuple[str, str]:
    key, is_given, value = option.partition("=")
    if not is_given or not key or not value:
        raise UserError(
            f"adaptation {name!r}: {option!r} is no option; write {name}:option=value, or a table "
            f"[tool.spqr.adaptation.{name}]"
        )
    return key, value


def _made(name: str, table: Mapping[str, Any], more: Mapping[str, str]) -> Named:
    entry = str(table.get("kind", name))
    options = {key: value for key, value in table.items() if key != "kind"}
    return Named(entry, _validated(ADAPTATIONS.get(entry), name, {**options, **more}))


def _validated(model: type[Any], name: str, options: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        known = ", ".join(model.model_fields) or "none"
        raise UserError(
            f"adaptation {name!r}: {refused_field(error, 'option')}\nits options: {known}"
        ) from None


def _names_files(spec: str) -> bool:
    if spec.endswith(".safetensors") or any(sign in spec for sign in ("*", "?", "[", os.sep, "/")):
        return True
    return Path(spec).expanduser().exists()


def files_of(spec: str) -> Iterator[str]:
    """Files that a pattern finds, sorted; the spec itself, for what is none."""
    if not any(sign in spec for sign in "*?["):
        yield spec
        return
    matched = sorted(glob.glob(os.path.expanduser(spec)))
    if not matched:
        raise UserError(f"adaptation {spec!r}: no file is named like that; correct the pattern")
    yield from matched


def _adapters(files: Sequence[str], community: Community) -> Iterator[tuple[str, Named]]:
    """Each alone at every scale, then any two."""
    together: list[tuple[str, ...]] = [(file,) for file in files]
    together += list(combinations(files, 2)) if community.pairs else []
    for some in together:
        for scale in community.scales:
            label = "+".join(_stem(file) for file in some)
            label += "" if scale == 1 else f"@{scale:g}"
            given = {"files": some, "scale": scale, "alpha": community.alpha}
            yield label, Named("adapter", _validated(Adapter, label, given))


def _stem(file: str) -> str:
    name = file.rstrip("/").replace("\\", "/").split("/")[-1]
    return _SAFE.sub("_", name.removesuffix(".safetensors")).replace("+", "_") or "adapter"
