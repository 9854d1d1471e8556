"""What of the source code counts, and which modules a maker reaches."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
from package_files import FILES, NAME, PACKAGE

from spqr_checks import source_code
from spqr_checks.errors import UserError
from spqr_checks.source_code import Module, Sources, code_of, parse

pytestmark = pytest.mark.usefixtures("own_cache")


def written(folder: Path, **files: str) -> Sources:
    """A package ``own`` of these files, which are named without their suffix."""
    for name, text in ({"__init__": ""} | files).items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Sources({"own": folder})


def forget() -> None:
    source_code._code.cache_clear()
    source_code._sources.cache_clear()


class TestWhatIsReached:
    @pytest.mark.parametrize(
        "line",
        [
            "import own.b",
            "from own import b",
            "from own.b import thing",
            "from own.b import *",
            "from . import b",
            "from .b import thing",
            "def f():\n    from own.b import thing",
            "try:\n    import own.b as c\nexcept ImportError:\n    c = None",
            "from importlib import import_module\nb = import_module('own.b')",
            "import importlib\nb = importlib.import_module('.b', __package__)",
            "if TYPE_CHECKING:\n    pass\nelse:\n    import own.b",
        ],
    )
    def test_every_way_to_import(self, tmp_path: Path, line: str) -> None:
        found = written(tmp_path, a=line, b="import own.c", c="", d="").reached(["own.a"])
        assert set(found) == {"own", "own.a", "own.b", "own.c"}

    @pytest.mark.parametrize(
        "line",
        [
            "import json, numpy.linalg",
            "if TYPE_CHECKING:\n    import own.b",
            "import typing\nif typing.TYPE_CHECKING:\n    import own.b",
            "from importlib import import_module\ndef f(name):\n    import_module(f'own.{name}')",
        ],
    )
    def test_what_is_not_followed(self, tmp_path: Path, line: str) -> None:
        assert set(written(tmp_path, a=line, b="").reached(["own.a"])) == {"own", "own.a"}

    def test_packages_on_the_way_run_too(self, tmp_path: Path) -> None:
        files = {"a": "import own.p.q.b", "p/__init__": "import own.c", "p/q/b": "", "c": ""}
        found = written(tmp_path, **files).reached(["own.a"])
        assert set(found) == {"own", "own.a", "own.p", "own.p.q.b", "own.c"}

    def test_relative_imports_start_from_the_package_itself(self, tmp_path: Path) -> None:
        files = {"p/__init__": "from .b import x", "p/b": "from ..c import y", "c": "", "b": ""}
        found = written(tmp_path, **files).reached(["own.p"])
        assert set(found) == {"own", "own.p", "own.p.b", "own.c"}

    def test_circles_end(self, tmp_path: Path) -> None:
        found = written(tmp_path, a="import own.b", b="import own.a").reached(["own.a"])
        assert set(found) == {"own", "own.a", "own.b"}

    def test_a_maker_without_source_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"own\.gone: its source file is not there"):
            written(tmp_path).digest(["own.gone"])

    def test_a_maker_of_another_package_reaches_into_this_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "brand_new_maker.py"
        path.write_text("from spqr_checks import hashing\ndef make(): pass\n", encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        import brand_new_maker  # type: ignore[import-not-found]

        assert code_of(brand_new_maker.make) == code_of("brand_new_maker")
        places = {NAME: PACKAGE, "brand_new_maker": path}
        found = Sources(places).reached(["brand_new_maker"])
        assert set(found) == {"brand_new_maker", NAME, f"{NAME}.hashing"}

    def test_of_another_package_everything_counts_whether_loaded_or_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = {"maker": "X = 1", "deep/by_name": "Y = 1", "a-template": "{{ no python }}"}
        written(tmp_path / "others_own", **files)
        monkeypatch.syspath_prepend(tmp_path)

        def digests() -> list[str]:
            forget()
            return [code_of("others_own.maker"), code_of(parse)]

        before = digests()
        assert "others_own" not in sys.modules
        for name, changes in (("maker", True), ("deep/by_name", True), ("a-template", False)):
            path = tmp_path / "others_own" / f"{name}.py"
            path.write_text(path.read_text(encoding="utf-8") + "\nZ = 2\n", encoding="utf-8")
            after = digests()
            assert (after[0] != before[0]) is changes, name
            assert after[1] == before[1]
            before = after
        (tmp_path / "others_own" / "broken.py").write_text("def", encoding="utf-8")
        assert digests()[0] != before[0]

    def test_a_package_that_is_not_installed_is_said_to_be_so(self) -> None:
        with pytest.raises(UserError, match="'no_such_package' is not installed; pip install"):
            code_of("no_such_package.maker")


class TestWhatOfAModuleCounts:
    TEXT = '"""A."""\nX = 1\ndef f(a):\n    """B."""\n    if a:\n        return a\n    return "b"\n'

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('"""A."""', ""),
            ('"""B."""', '"""C."""'),
            ("X = 1", "# why\n\nX = 1  # this\n'''of X'''"),
            ("X = 1", "X = (\n    1)"),
            ('"b"', "'b'"),
            ("X = 1", "X = 1\nif TYPE_CHECKING:\n    from a import b"),
        ],
    )
    def test_what_does_nothing_is_left_out(self, old: str, new: str) -> None:
        text = self.TEXT.replace("X = 1", "X = 1\nif TYPE_CHECKING:\n    pass")
        edited = text.replace(old, new) if "TYPE" not in new else self.TEXT.replace(old, new)
        assert parse(edited.encode(), "a").tree == parse(text.encode(), "a").tree

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("X = 1", "X = 2"),
            ("X = 1", "X = 1.0"),
            ("X = 1", "X = True"),
            ("X = 1", "X = None"),
            ("X = 1", "X: int = 1"),
            ("def f(a)", "def f(a=None)"),
            ("def f(a)", "async def f(a)"),
            ("return a\n", "return None\n"),
            ("return a\n", "return\n"),
            ('"b"', 'b"b"'),
            ('\n    return "b"', '\n        return "b"'),
        ],
    )
    def test_whatever_runs_counts(self, old: str, new: str) -> None:
        edited = self.TEXT.replace(old, new)
        assert edited != self.TEXT
        assert parse(edited.encode(), "a").tree != parse(self.TEXT.encode(), "a").tree

    def test_it_is_the_same_under_every_version_of_python(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Fields that a version adds are empty in a file that does not use them."""
        text = (
            b"def f(a: int = 1, *b): return [f'{a!r:>{b}}', None, 1.0, \"\\u00e9\"]\nclass C: ...\n"
        )
        assert parse(text, "a").tree == "4455bd5639203e3927f1150b30e65a2e"
        for node in (ast.FunctionDef, ast.ClassDef):
            monkeypatch.setattr(node, "_fields", (*node._fields, "brand_new"))
            monkeypatch.setattr(node, "brand_new", [], raising=False)
        assert parse(text, "a").tree == "4455bd5639203e3927f1150b30e65a2e"


class TestTheCache:
    def test_a_module_is_parsed_once_until_its_file_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = written(tmp_path / "own", a="import own.b", b="x = 1").digest(["own.a"])
        seen: list[str] = []

        def counted(source: bytes, name: str, **more: Any) -> Module:
            seen.append(name)
            return parse(source, name, **more)

        monkeypatch.setattr(source_code, "parse", counted)
        assert Sources({"own": tmp_path / "own"}).digest(["own.a"]) == before
        assert seen == []
        (tmp_path / "own" / "b.py").write_text("x = 2", encoding="utf-8")
        assert Sources({"own": tmp_path / "own"}).digest(["own.a"]) != before
        assert seen == ["own.b"]

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "modules": 2}'])
    def test_a_cache_that_is_no_cache_is_made_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        before = written(tmp_path / "own", a="x = 1").digest(["own.a"])
        (kept,) = (tmp_path / "cache" / "spqr-checks").iterdir()
        whole = kept.read_text(encoding="utf-8")
        for broken in (text, whole.replace("tree", "bush")):
            kept.write_text(broken, encoding="utf-8")
            assert Sources({"own": tmp_path / "own"}).digest(["own.a"]) == before
        assert kept.read_text(encoding="utf-8") == whole

    def test_none_is_needed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        before = written(tmp_path / "own", a="x = 1").digest(["own.a"])
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert Sources({"own": tmp_path / "own"}).digest(["own.a"]) == before


@pytest.mark.slow
def test_each_function_counts_and_no_comment_or_docstring_does() -> None:
    functions = 0
    for name, path in FILES.items():
        text = path.read_text(encoding="utf-8")
        whole, tree = parse(text.encode(), name), ast.parse(text)
        found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        for node in found:
            alone = "if True:\n" + "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])
            alone = alone if node.col_offset else alone.partition("\n")[2]
            before = parse(alone.encode(), name).tree
            row = node.body[-1].lineno - node.lineno + bool(node.col_offset)
            changed = with_statement(alone, row, node.body[-1].col_offset)
            assert parse(changed.encode(), name).tree != before, f"{name}.{node.name}"
        if found:
            last = found[-1].body[-1]
            changed = with_statement(text, last.lineno - 1, last.col_offset)
            assert parse(changed.encode(), name).tree != whole.tree, f"{name}.{found[-1].name}"
        functions += len(found)
        assert parse(undocumented(tree).encode(), name).tree == whole.tree, name
    assert functions > 1000


def with_statement(text: str, row: int, column: int) -> str:
    """The text with one statement more, before the one that begins there."""
    lines = text.splitlines()
    before, after = lines[row].encode()[:column].decode(), lines[row].encode()[column:].decode()
    separator = "; " if before.strip() else f"\n{before}"
    return "\n".join([*lines[:row], f"{before}0{separator}{after}", *lines[row + 1 :]])


def undocumented(tree: ast.Module) -> str:
    """The text of a tree: without comments, and with another docstring wherever one may be."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node) is not None:
                del node.body[0]
            node.body.insert(0, ast.Expr(ast.Constant("Something else.")))
    return ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.heavy
def test_names_made_at_run_time_are_imported_by_registries_only() -> None:
    """Whoever adds such an import sees to it that the chosen module is among the makers."""
    found = Sources({NAME: PACKAGE}).reached(FILES)
    dynamic = {name for name, module in found.items() if module.dynamic}
    registries = {name for name in FILES if name.endswith(".registry")}
    libraries_only = {f"{NAME}.models.pipelines", f"{NAME}.doctor.packages"}
    commands = {f"{NAME}.cli.main"}  # it makes no artefact
    assert dynamic - libraries_only - commands <= registries
