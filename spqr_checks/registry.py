"""Whatever is chosen by name: judges, methods, metrics, formats. One registry serves them all.

An entry is a module-level object of a fixed name (``JUDGE``, ``METHOD``) in a module of one
package of ours, and goes by the name of its file. Another distribution adds one through an entry
point, or the settings name it as ``module:object``. Light: listing imports no entry.
"""

from __future__ import annotations

import difflib
import operator
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Generic, TypeVar, cast

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.packages import OURS
from spqr_checks.source_code import code_of

T = TypeVar("T")
_OBJECT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry is defined.

    Attributes:
        owner: distribution and version; `OURS`, or "" for ``module:object``.
    """

    module: str
    attribute: str
    owner: str = ""

    @property
    def object(self) -> str:
        """As ``module:object``."""
        return f"{self.module}:{self.attribute}"

    def __str__(self) -> str:
        return self.object + (f" of {self.owner}" if self.owner else "")


class Registry(Generic[T]):
    """Entries of one kind, by name.

    Args:
        what: what an entry is called in messages.
        package: the package of ours whose modules define them.
        attribute: what a module calls its entry.
        group: the group of entry points by which others add theirs.
        accepts: whether an object is such an entry.
        separator: what stands for ``_`` of a file's name; names of others are spelled so too.
        reserved: names that mean something else.
    """

    def __init__(
        self,
        what: str,
        package: str,
        attribute: str,
        group: str,
        accepts: Callable[[object], bool],
        *,
        separator: str = "-",
        reserved: tuple[str, ...] = (),
    ) -> None:
        self.what, self.package, self.attribute, self.group = what, package, attribute, group
        self._accepts, self._separator, self._reserved = accepts, separator, reserved
        self._known: tuple[EntryPoints, tuple[EntryPoint, ...]] | None = None

    def names(self) -> tuple[str, ...]:
        """All names, sorted; none of the entries is imported."""
        return tuple(sorted({name for name, _ in self._places()}))

    def own(self) -> tuple[str, ...]:
        """Names that come with this package, sorted; entry points are not looked up."""
        return tuple(sorted(name for name, _ in self._own()))

    def modules(self) -> tuple[str, ...]:
        """Full names of the modules that `own` names: makers where any of them may be taken."""
        return tuple(self.place(name).module for name in self.own())

    def added(self) -> tuple[str, ...]:
        """Names that other distributions add, sorted."""
        return tuple(sorted({name for name, _ in self._added()}))

    def get(self, name: str, objects: bool = True) -> T:
        """The entry of that name.

        Args:
            objects: whether ``module:object`` is a name. Not where the name comes out of a file
                that may be somebody else's: it would say which code is run.

        Raises:
            UserError: for an unknown name, one that two distributions define, and an entry of
                another distribution that cannot be imported or is something else.
        """
        place = self.place(name, objects)
        if place.owner == OURS:
            found = getattr(import_module(place.module), place.attribute)
            if not self._accepts(found):
                raise TypeError(f"{place} is no {self.what}")
            return cast(T, found)
        try:
            found = operator.attrgetter(place.attribute)(import_module(place.module))
        except Exception as error:  # code of others raises what it likes
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(
                f"{self.what} {name!r} ({place}) cannot be loaded: {said}\n"
                "Install what it lacks, or mend or uninstall it."
            ) from error
        if not self._accepts(found):
            raise UserError(
                f"{self.what} {name!r} ({place}) is of type {type(found).__name__}, "
                f"which is no {self.what}; see docs/extending.md"
            )
        return cast(T, found)

    def place(self, name: str, objects: bool = True) -> Place:
        """Where the entry of that name is defined. Raises UserError; imports no entry."""
        found = [place for known, place in self._places() if known == name]
        if len(found) > 1 or (found and name in self._reserved):
            clash = [*(str(one) for one in found), *[OURS] * (name in self._reserved)]
            raise UserError(
                f"{self.what} {name!r} is defined twice, by {' and by '.join(sorted(clash))}; "
                "uninstall one or give it another name"
            )
        if found:
            return found[0]
        if objects and _OBJECT.fullmatch(name):
            return Place(*name.split(":"))
        names = self.names()
        near = difflib.get_close_matches(name, names, n=1)
        raise UserError(
            f"unknown {self.what} {name!r}; there are: {', '.join(names)}"
            + (f". Did you mean {near[0]!r}?" if near else "")
        )

    def code(self, name: str) -> dict[str, Json]:
        """What a recipe holds of the code of an entry that is not ours; empty for ours.

        Ours is in the recipes by its files. Raises UserError as `place`.
        """
        place = self.place(name)
        return {} if place.owner == OURS else {"entry": _code(place)}

    def added_code(self) -> dict[str, Json]:
        """The same for all entries that others add: where a recipe cannot know which is taken."""
        code = {name: _code(place) for name, place in self._added()}
        return {self.group: code} if code else {}

    def _places(self) -> Iterator[tuple[str, Place]]:
        yield from self._own()
        yield from self._added()

    def _own(self) -> Iterator[tuple[str, Place]]:
        path = tuple(import_module(self.package).__path__)
        for module in _defining(path, self.attribute):
            name = module.replace("_", self._separator)
            yield name, Place(f"{self.package}.{module}", self.attribute, OURS)

    def _added(self) -> Iterator[tuple[str, Place]]:
        points = _points(tuple(sys.path))
        if self._known is None or self._known[0] is not points:
            # asked for with every recipe
            self._known = (points, tuple(sorted(points.select(group=self.group))))
        for point in self._known[1]:
            owner = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
            if not _NAME.fullmatch(point.name) or not _OBJECT.fullmatch(point.value):
                raise UserError(
                    f"{owner}: entry point {point.name!r} = {point.value!r} of {self.group} is not "
                    "NAME = module:object, the name of letters, digits, '-', '_' and '.'"
                )
            name = re.sub("[-_]", self._separator, point.name)
            yield name, Place(point.module, point.attr, owner)


def _code(place: Place) -> Json:
    return {"object": str(place), "sources": code_of(place.module)}


@lru_cache(maxsize=1)
def _points(path: tuple[str, ...]) -> EntryPoints:
    """All entry points of the distributions on ``sys.path``, which are read once."""
    return cast(EntryPoints, entry_points())  # before Python 3.12 its parent, with select() too


@lru_cache
def _defining(folders: tuple[str, ...], attribute: str) -> tuple[str, ...]:
    """Modules of the folders whose source assigns the attribute at its top level; not imported."""
    assigns = re.compile(rf"^{attribute}\b[^=\n]*=", re.MULTILINE)
    found = []
    for finder, name, is_package in pkgutil.iter_modules(folders):
        folder = Path(finder.path)  # type: ignore[union-attr]
        file = folder / name / "__init__.py" if is_package else folder / f"{name}.py"
        if file.is_file() and assigns.search(file.read_text(encoding="utf-8")):
            found.append(name)
    return tuple(found)
