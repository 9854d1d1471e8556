"""The digest of the source code that makes an artefact, which belongs to the artefact's recipe.

A maker is a function or a class. Its code is the module that defines it and every module of the
package that this imports, at its top or inside a function, and so on, with the packages on the
way. Not followed are imports for type checkers only, and imports by a name that is made at run
time: a registry names the module that was chosen as one more maker, so that a method's key does
not hold the code of the others. Of a maker that is not ours, all modules of its top-level package
count, since nobody sees to it there, and what they reach of ours.

Of a module counts its syntax tree without docstrings, other strings that stand alone, comments
and line numbers. The tree is written by `_written` and not by `ast.dump`, which differs between
versions of Python: what a version adds and a file does not use leaves no trace.

Light: imports nothing but the standard library and `hashing`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from spqr_checks.errors import UserError
from spqr_checks.hashing import digest

_PACKAGE = __name__.partition(".")[0]
_UNUSED = {"ctx", "kind", "type_comment", "type_ignores"}
"""Fields of a node that follow from others or do nothing."""


class Module(NamedTuple):
    """What is known of a module from its text alone.

    Attributes:
        tree: digest of its syntax tree.
        imports: full names that it imports: modules, or what is in them.
        dynamic: whether it also imports by names made at run time.
    """

    tree: str
    imports: tuple[str, ...]
    dynamic: bool


def code_of(*makers: Any) -> str:
    """Digest of the code of makers; read once by each process.

    Args:
        makers: functions, classes, or full names of modules that need not be loaded.

    Raises:
        UserError: for a maker whose source file is not there.
    """
    modules = tuple(m if isinstance(m, str) else m.__module__ for m in makers)
    tops = sorted({_PACKAGE, *map(_top, modules)})
    return _code(modules, tuple((top, _place(top)) for top in tops))


@cache
def _code(modules: tuple[str, ...], places: tuple[tuple[str, Path], ...]) -> str:
    sources = _sources(places)
    others = [m for top, _ in places if top != _PACKAGE for m in sources.modules(top)]
    return sources.digest([*modules, *others])


@cache
def _sources(places: tuple[tuple[str, Path], ...]) -> Sources:
    return Sources(dict(places))


def _top(name: str) -> str:
    return name.partition(".")[0]


class Sources:
    """Source files of packages, by the packages' names. Each is read once.

    Args:
        places: folder of each top-level package, or file of each top-level module.
    """

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = places
        self._parsed = {top: _Parsed(place) for top, place in places.items()}
        self._modules: dict[str, Module | None] = {}

    def digest(self, modules: Iterable[str]) -> str:
        """Digest of the syntax trees of modules and of all that they reach, by name.

        Raises:
            UserError: for a module whose source file is not there.
        """
        return digest({name: found.tree for name, found in self.reached(modules).items()})

    def reached(self, modules: Iterable[str]) -> dict[str, Module]:
        """The modules themselves and all that they reach; errors as `digest`."""
        reached: dict[str, Module] = {}
        waiting = list(modules)
        for name in waiting:
            if self._module(name) is None:
                raise UserError(
                    f"{name}: its source file is not there, so that nothing can tell whether "
                    "stored results are still its own. Install the package with its sources."
                )
        while waiting:
            name = waiting.pop()
            while name and name not in reached:  # with the packages on the way
                found = self._module(name)
                if found is not None:
                    reached[name] = found
                    waiting += found.imports
                name = name.rpartition(".")[0]
        for parsed in self._parsed.values():
            parsed.keep()
        return reached

    def modules(self, top: str) -> list[str]:
        """Full names of all modules of a package."""
        place = self._places[top]
        paths = [p.relative_to(place).with_suffix("").parts for p in sorted(place.rglob("*.py"))]
        named = [".".join((top, *p)) for p in paths if all(part.isidentifier() for part in p)]
        return [name.removesuffix(".__init__") for name in named]

    def _module(self, name: str) -> Module | None:
        if name not in self._modules:
            path = self._file(name)
            found = None if path is None else self._parsed[_top(name)].module(name, path)
            self._modules[name] = found
        return self._modules[name]

    def _file(self, name: str) -> Path | None:
        """The file of a module; None for what is no module of these packages."""
        top, *rest = name.split(".")
        if top not in self._places:
            return None
        place = self._places[top]
        if place.suffix == ".py":
            return place if not rest and place.is_file() else None
        folder = place.joinpath(*rest)
        found = (folder / "__init__.py", folder.parent / f"{folder.name}.py")
        return next((path for path in found[: 1 + bool(rest)] if path.is_file()), None)


class _Parsed:
    """Modules of one package, kept in the user's cache until the status of their files changes.

    Parsing takes most of a second, longer than all else that is done by a run that finds everything
    in its store. Where the cache cannot be written every process parses for itself.
    """

    def __init__(self, place: Path) -> None:
        name = digest([os.path.abspath(place), *sys.version_info[:2]])
        caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self._cache = Path(caches) / "spqr-checks" / f"{name}.json"
        self._format = _status(Path(__file__))
        self._kept: dict[str, Any] = {}
        self._new = False
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._cache.read_text(encoding="utf-8"))
            if kept["format"] == self._format:
                self._kept = dict(kept["modules"])

    def module(self, name: str, path: Path) -> Module:
        status = _status(path)
        with suppress(KeyError, TypeError, ValueError):
            known = self._kept[name]
            if known["status"] == status:
                return Module(known["tree"], tuple(known["imports"]), known["dynamic"])
        source = path.read_bytes()
        try:
            found = parse(source, name, is_package=path.name == "__init__.py")
        except (SyntaxError, ValueError):  # a template, or made for another Python
            found = Module(hashlib.sha256(source).hexdigest()[:32], (), False)
        self._kept[name] = {"status": status} | found._asdict()
        self._new = True
        return found

    def keep(self) -> None:
        """Writes what was parsed anew."""
        if not self._new:
            return
        self._new = False
        text = json.dumps({"format": self._format, "modules": self._kept})
        draft = self._cache.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(text, encoding="utf-8")
            draft.replace(self._cache)


def parse(source: bytes, name: str, *, is_package: bool = False) -> Module:
    """A module's digest and imports.

    Args:
        source: its text.
        name: its full name, which relative imports start from.
    """
    tree = ast.parse(source)
    _simplify(tree)
    package = name if is_package else name.rpartition(".")[0]
    imports: dict[str, None] = {}
    dynamic = False
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                imports |= dict.fromkeys(alias.name for alias in node.names)
            case ast.ImportFrom():
                base = _absolute("." * node.level + (node.module or ""), package)
                imports |= dict.fromkeys([base, *(f"{base}.{alias.name}" for alias in node.names)])
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)):
                if called in ("import_module", "__import__"):
                    match node.args[:1]:
                        case [ast.Constant(value=str(target))]:
                            imports[_absolute(target, package)] = None
                        case _:
                            dynamic = True
    written = "".join(_written(tree))
    return Module(hashlib.sha256(written.encode()).hexdigest()[:32], tuple(imports), dynamic)


def _absolute(name: str, package: str) -> str:
    """``..x`` in package ``a.b`` is ``a.x``."""
    bare = name.lstrip(".")
    for _ in range(len(name) - len(bare) - 1):
        package = package.rpartition(".")[0]
    if bare == name:
        return name
    return f"{package}.{bare}" if bare else package


def _simplify(tree: ast.AST) -> None:
    """Takes out what does nothing when the module runs."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, [s for s in statements if not _is_text(s)])
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                node.body = []
            case ast.JoinedStr(values=parts):  # the first releases of 3.12 end some with nothing
                node.values = [p for p in parts if getattr(p, "value", None) != ""]


def _is_text(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def _written(node: Any) -> Iterator[str]:
    """A syntax tree as text; empty fields are left out, as are those of `_UNUSED`."""
    if isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for field in node._fields:
            value = getattr(node, field, None)
            if field in _UNUSED or (value is None and field != "value") or value == []:
                continue
            yield f"{field}="
            yield from _written(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _written(item)
            yield ","
        yield "]"
    else:
        yield ascii(node)


def _status(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _place(top: str) -> Path:
    """Folder of a top-level package, or file of a module, loaded or not."""
    module = sys.modules.get(top)
    if module is not None:
        file, folders = getattr(module, "__file__", None), getattr(module, "__path__", ())
    else:
        spec = find_spec(top)
        if spec is None:
            raise UserError(f"package {top!r} is not installed; pip install it, or set PYTHONPATH")
        file, folders = spec.origin, spec.submodule_search_locations or ()
    if file is not None:
        path = Path(file)
        return path.parent if path.name == "__init__.py" else path
    # a package without __init__.py may lie in several places, of which one is no whole
    if len(places := list(folders)) == 1:
        return Path(places[0])
    raise UserError(f"{top}: its source file is not there; put the maker into a module.")
