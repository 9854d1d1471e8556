"""The keys of the store follow the code that makes its entries, and nothing else."""

from __future__ import annotations

import ast
import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grimp
import numpy as np
import pytest
from every_entry import drawn, entries, session_of
from package_files import FILES, NAME, PACKAGE
from safetensors.numpy import save_file

from spqr_checks import source_code
from spqr_checks.alignment import registry as alignment
from spqr_checks.checks import finished
from spqr_checks.errors import UserError
from spqr_checks.generation.guidance import registry as guidance
from spqr_checks.judges import registry as judges
from spqr_checks.matrix import DESTROYED
from spqr_checks.metrics import adherence, distances, features
from spqr_checks.models import sources
from spqr_checks.source_code import Module, Sources, parse
from spqr_checks.store.store import entry_key

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def makers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Entry → the modules of its makers, as its recipe itself names them."""
    found: dict[str, set[str]] = {}
    asked: set[str] = set()

    def noted(modules: tuple[str, ...], _: Any) -> str:
        asked.update(modules)
        return "noted"

    kind = judges.kind
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_code, "_code", noted)
        patch.setattr(sources, "source_recipe", lambda _: {"files": {}})
        patch.setattr("spqr_checks.metrics.model_metrics.installed", str)
        patch.setattr("spqr_checks.metrics.model_metrics.library_version", str)
        nothing_read: dict[str, Any] = {
            "contents": lambda *_: {},
            "packages": (),
            "architecture": "",
            "knows": None,
        }
        patch.setattr(judges, "kind", lambda name: replace(kind(name), **nothing_read))
        for entry, recipe in entries(tmp_path_factory.mktemp("entries")).items():
            asked.clear()
            recipe()
            found[entry] = set(asked)
    return found


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """What imports what, as another library reads it."""
    return grimp.build_graph(NAME, exclude_type_checking_imports=True, cache_dir=None)


def with_parents(modules: set[str]) -> set[str]:
    parts = {name: name.split(".") for name in modules}
    return {".".join(p[:n]) for p in parts.values() for n in range(1, len(p) + 1)}


def reach(graph: grimp.ImportGraph, modules: set[str]) -> set[str]:
    """What makers reach by that library's account."""
    found = with_parents(modules)
    while True:
        more = with_parents(
            {m for one in found for m in graph.find_modules_directly_imported_by(one)} | found
        )
        if more == found:
            return found
        found = more


@pytest.mark.heavy
def test_every_kind_of_entry_that_the_package_makes_is_looked_at(
    makers: dict[str, set[str]],
) -> None:
    kinds: set[str] = set()
    for path in FILES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name(id="Unit") | ast.Attribute(attr="_on_images" | "build"),
                    args=[ast.Constant(value=str(kind)), *_]
                    | [ast.Starred(ast.Tuple([ast.Constant(value=str(kind)), *_])), *_],
                ):
                    kinds.add(kind)
    kinds.add(finished._KIND)
    assert kinds >= {"alignment", "tuning", "images", "verdicts", "features"}
    assert {entry.split()[0] for entry in makers} == kinds


@pytest.mark.heavy
def test_every_entry_names_the_file_that_was_chosen_and_no_other_of_its_registry(
    makers: dict[str, set[str]],
) -> None:
    source = Sources({NAME: PACKAGE})
    chosen = {e.split()[1]: e for e in makers if e.split()[1:2] and NAME in e}
    registries = (
        alignment.METHODS.own(),
        judges.JUDGES.own(),
        adherence.ADHERENCES.own(),
        features.FEATURE_KINDS.own(),
        distances.DISTANCES.own(),
        guidance.GUIDANCES.own(),
    )
    assert len(chosen) == sum(map(len, registries))
    for file, entry in chosen.items():
        found = set(source.reached(makers[entry]))
        assert file in found, entry
        imported = set(source.reached([file]))
        others = {o for o in chosen if o.rpartition(".")[0] == file.rpartition(".")[0]}
        assert found & others <= imported, entry


@pytest.mark.heavy
def test_what_is_reached_is_what_is_imported(
    makers: dict[str, set[str]], graph: grimp.ImportGraph
) -> None:
    source = Sources({NAME: PACKAGE})
    for entry, modules in makers.items():
        assert modules, entry
        assert set(source.reached(modules)) == reach(graph, modules), entry


@pytest.mark.heavy
def test_a_key_changes_with_each_file_in_reach_and_with_no_other(
    makers: dict[str, set[str]], graph: grimp.ImportGraph, tmp_path: Path
) -> None:
    package = tmp_path / NAME
    shutil.copytree(PACKAGE, package, ignore=lambda at, names: not_python(Path(at), names))
    source = Sources({NAME: package})
    assert set(source.reached(FILES)) == set(FILES)
    edits = {name: parse(path.read_bytes() + b"\n0\n", name) for name, path in FILES.items()}
    for modules in {frozenset(found) for found in makers.values()}:
        before, inside = source.digest(modules), reach(graph, set(modules))
        assert before == Sources({NAME: PACKAGE}).digest(modules)
        for name in inside:
            assert edited(source, {name: edits[name]}).digest(modules) != before, name
        outside = {name: edits[name] for name in FILES.keys() - inside}
        assert edited(source, outside).digest(modules) == before


def not_python(folder: Path, names: list[str]) -> set[str]:
    return {n for n in names if not (folder / n).is_dir() and not n.endswith(".py")}


def edited(source: Sources, modules: dict[str, Module]) -> Sources:
    changed = copy.copy(source)
    changed._modules = source._modules | modules
    return changed


# ---- the faults that lists kept by hand have had ------------------------------------------


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package whose sources count as the package's own."""
    package = tmp_path / NAME
    shutil.copytree(PACKAGE, package, ignore=lambda at, names: not_python(Path(at), names))
    place = source_code._place
    monkeypatch.setattr(source_code, "_place", lambda top: package if top == NAME else place(top))
    forget()
    yield package
    monkeypatch.undo()
    forget()


def forget() -> None:
    source_code._code.cache_clear()
    source_code._sources.cache_clear()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    forget()


def file_of(package: Path, function: Callable[..., Any] | str) -> Path:
    name = function if isinstance(function, str) else function.__module__
    return package / FILES[name].relative_to(PACKAGE)


def test_destroyed_images_follow_the_function_that_destroys(copied: Path, tmp_path: Path) -> None:
    from spqr_checks.models.weights import shuffle_denoiser

    def key() -> str:
        return entry_key("images", drawn(session_of(tmp_path), DESTROYED))

    before, path = key(), file_of(copied, shuffle_denoiser)
    edit(path, "order = torch.randperm(", "# at random\n            order = torch.randperm(")
    assert key() == before
    edit(
        path,
        "if tensor.is_floating_point():\n                flat",
        "if True:\n                flat",
    )
    assert key() != before


@pytest.mark.parametrize("method", ["sld", "ca"])
def test_an_alignment_follows_the_names_of_concepts(tmp_path: Path, method: str) -> None:
    keys, prompts = set(), tmp_path / "aligning.csv"
    for name in ("star", "moon", "star"):
        row = f"a red star,harmful,{name},sky,en,photo,a hill"
        prompts.write_text(f"prompt,kind,concept,category,language,domain,anchor\n{row}\n")
        given = session_of(
            tmp_path,
            candidate=f"method:{method}",
            alignment_prompts=[str(prompts)],
            alignment_languages="en",
        )
        keys.add(entry_key("alignment", given.states.alignment_unit.recipe))
    assert len(keys) == 2


def test_a_method_follows_the_contents_of_what_it_reads(tmp_path: Path) -> None:
    def key(segmenter: str) -> str:
        options = {"method.mace.segmenter": segmenter} if segmenter else {}
        one = session_of(tmp_path, candidate="method:mace", **options)
        return entry_key("alignment", one.states.alignment_unit.recipe)

    folder = tmp_path / "segmenter"
    folder.mkdir()
    with pytest.raises(UserError, match="no safetensors weights"):
        key(str(folder))
    keys = [key("")]
    for value in (0, 1):
        save_file({"w": np.full(1, value, np.float32)}, folder / "model.safetensors")
        keys.append(key(str(folder)))
    (folder / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    keys.append(key(str(folder)))
    assert len(set(keys)) == 4


@pytest.mark.heavy
def test_a_method_follows_its_own_code_and_not_another_s(copied: Path, tmp_path: Path) -> None:
    def keys() -> dict[str, str]:
        sessions = {n: session_of(tmp_path, candidate=f"method:{n}") for n in ("esd", "uce")}
        return {
            n: entry_key("alignment", s.states.alignment_unit.recipe) for n, s in sessions.items()
        }

    before, path = keys(), file_of(copied, alignment.method("uce").run)
    path.write_text("# a comment\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    forget()
    assert keys() == before
    edit(path, "\nMETHOD = ", "\n0\nMETHOD = ")
    assert keys()["esd"] == before["esd"]
    assert keys()["uce"] != before["uce"]
