"""What can be added is found by name, wherever it is defined."""

from __future__ import annotations

import string
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spqr_checks import registry as registries
from spqr_checks import source_code
from spqr_checks.adaptations.registry import ADAPTATIONS
from spqr_checks.alignment.registry import METHODS, method
from spqr_checks.attacks.registry import ATTACKS
from spqr_checks.errors import UserError
from spqr_checks.finetuning.families.registry import FAMILIES
from spqr_checks.generation.guidance.registry import GUIDANCES, from_json
from spqr_checks.guards.registry import GUARDS
from spqr_checks.judges.registry import JUDGES, judge_recipe
from spqr_checks.metrics.adherence import ADHERENCES
from spqr_checks.metrics.distances import DISTANCES
from spqr_checks.metrics.features import FEATURE_KINDS
from spqr_checks.prompts.sources import FORMATS, read_file, read_source
from spqr_checks.registry import Registry

ALL: dict[str, Registry[Any]] = {
    "spqr_checks.adaptations": ADAPTATIONS,
    "spqr_checks.judges": JUDGES,
    "spqr_checks.guards": GUARDS,
    "spqr_checks.methods": METHODS,
    "spqr_checks.attacks": ATTACKS,
    "spqr_checks.adherence": ADHERENCES,
    "spqr_checks.features": FEATURE_KINDS,
    "spqr_checks.distances": DISTANCES,
    "spqr_checks.prompt_formats": FORMATS,
    "spqr_checks.families": FAMILIES,
    "spqr_checks.guidance": GUIDANCES,
}
Install = Callable[..., Path]
METHOD = (
    "from spqr_checks.alignment.method import Method, Options\n"
    "METHOD = Method('{name}', Options, lambda *_: None)\n"
)
JUDGE = (
    "from spqr_checks.judges.base import JudgeKind, JudgeOptions\n"
    "JUDGE = JudgeKind(JudgeOptions, None, source='optional', packages=(),\n"
    "    contents=lambda source, options: {})\n"
)
FORMAT = (
    "from spqr_checks.prompts.formats.base import Format, Sieve\n"
    "from spqr_checks.prompts.prompt import Prompt\n"
    "def read(table):\n"
    "    sieve = Sieve('poems', table)\n"
    "    for number, row in table.rows:\n"
    "        sieve.add(number, Prompt(sieve.id_of(number), row['verse'], 'benign'))\n"
    "    return sieve.reading()\n"
    "FORMAT = Format('poems', lambda row: 'verse' in row, read)\n"
)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution with entry points on sys.path; its module is named after it."""

    def put(name: str, group: str, points: dict[str, str], code: str) -> Path:
        site = tmp_path / name
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        (site / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)  # whatever is imported is forgotten afterwards
        return site / f"{name}.py"

    return put


@pytest.mark.parametrize("group", ALL)
class TestEveryRegistry:
    def test_an_unknown_name_is_answered_with_the_nearest_and_all(self, group: str) -> None:
        known = ALL[group].names()
        near = known[0]
        with pytest.raises(UserError) as error:
            ALL[group].get(near + "x")
        assert str(error.value) == (
            f"unknown {ALL[group].what} {near + 'x'!r}; there are: {', '.join(known)}. "
            f"Did you mean {near!r}?"
        )

    def test_names_are_sorted_and_every_one_of_them_is_there(self, group: str) -> None:
        names = ALL[group].names()
        assert list(names) == sorted(set(names))
        assert names
        for name in names:
            ALL[group].get(name)

    def test_an_entry_point_of_its_group_adds_a_name(self, group: str, install: Install) -> None:
        before = ALL[group].names()
        install("more", group, {"a-new-one": "more:thing"}, "thing = 3\n")
        (name,) = set(ALL[group].names()) - set(before)
        assert name.replace("_", "-") == "a-new-one"
        assert "more" not in sys.modules
        with pytest.raises(UserError, match=r"\(more:thing of more 1\.0\) is of type int"):
            ALL[group].get(name)


@pytest.mark.heavy
@given(name=st.text(string.printable, max_size=30))
def test_no_text_is_anything_but_an_entry_or_a_user_error(name: str) -> None:
    for registry in ALL.values():
        if name not in registry.names():
            with pytest.raises(UserError):
                registry.get(name, objects=False)


@given(st.permutations(["b", "a", "c"]))
def test_names_do_not_depend_on_the_order_of_installation(order: list[str]) -> None:
    points = EntryPoints(EntryPoint(name, f"m.{name}:X", "spqr_checks.judges") for name in order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registries, "_points", lambda path: points)
        assert JUDGES.added() == ("a", "b", "c")
        assert [place.module for _, place in JUDGES._added()] == ["m.a", "m.b", "m.c"]


def test_a_name_of_two_distributions_is_refused_with_both(install: Install) -> None:
    for name in ("one", "two"):
        install(name, "spqr_checks.judges", {"sharp": f"{name}:JUDGE"}, JUDGE)
    with pytest.raises(UserError, match=r"twice, by one:JUDGE of one 1\.0 and by two:JUDGE of two"):
        JUDGES.get("sharp")
    assert JUDGES.names().count("sharp") == 1
    assert JUDGES.get("two:JUDGE") is sys.modules["two"].JUDGE


@pytest.mark.parametrize("name", ["clip", "ip", "any"])
def test_our_names_are_ours(install: Install, name: str) -> None:
    install("one", "spqr_checks.judges", {name: "one:JUDGE"}, JUDGE)
    with pytest.raises(UserError, match=r"is defined twice, by .*spqr-checks"):
        JUDGES.get(name)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("def\n", "SyntaxError"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_module_is_named_with_what_is_wrong(
    install: Install, code: str, said: str
) -> None:
    install("broken", "spqr_checks.methods", {"b": "broken:METHOD"}, code)
    with pytest.raises(UserError, match=rf"'b' \(broken:METHOD of broken 1\.0\).*{said}"):
        method("b")
    with pytest.raises(UserError, match=rf"broken:METHOD.*{said}"):
        method("broken:METHOD")


def test_an_entry_point_that_is_none_is_refused(install: Install) -> None:
    install("odd", "spqr_checks.judges", {"two words": "odd:JUDGE"}, JUDGE)
    with pytest.raises(UserError, match=r"odd 1\.0: entry point 'two words'"):
        JUDGES.names()


def test_a_method_goes_by_the_name_of_its_entry_point(install: Install) -> None:
    install("mine", "spqr_checks.methods", {"soft": "mine:METHOD"}, METHOD.format(name="other"))
    assert method("soft").name == "soft"
    assert method("mine:METHOD").name == "other"


def test_an_entry_point_may_be_named_as_an_object_as_well(install: Install) -> None:
    install("mine", "spqr_checks.methods", {"soft": "mine:METHOD"}, METHOD.format(name="soft"))
    assert method("mine:METHOD").name == "soft"


def test_an_object_may_not_call_itself_as_one_of_ours(install: Install) -> None:
    install("mine", "no.group", {"soft": "mine:METHOD"}, METHOD.format(name="uce"))
    with pytest.raises(UserError, match=r"calls itself 'uce'.*spqr_checks\.alignment\.uce:METHOD"):
        method("mine:METHOD")


def test_the_code_and_version_of_others_are_in_the_recipes_and_ours_as_ever(
    install: Install,
) -> None:
    def keys() -> list[Any]:
        source_code._code.cache_clear()
        source_code._sources.cache_clear()
        registries._points.cache_clear()
        chosen = method("soft")
        return [chosen.recipe(chosen.parse({})), judge_recipe("sharp", 0.5, ["a"])]

    file = install("mine", "spqr_checks.methods", {"soft": "mine:METHOD"}, METHOD.format(name="x"))
    other = install("eyes", "spqr_checks.judges", {"sharp": "eyes:JUDGE"}, JUDGE)
    before = keys()
    assert keys() == before
    for edited in (file, other):
        edited.write_text(edited.read_text() + "X = 1\n")
    after = keys()
    assert all(a != b for a, b in zip(before, after, strict=True))
    metadata = file.parent / "mine-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    assert keys()[0] != after[0]
    assert "entry" not in method("uce").recipe(method("uce").parse({}))


def test_what_cannot_be_named_enters_by_all_that_is_installed(install: Install) -> None:
    assert FAMILIES.added_code() == {}
    install("more", "spqr_checks.families", {"f": "more:FAMILY"}, "FAMILY = 1\n")
    assert set(FAMILIES.added_code()) == {"spqr_checks.families"}


def test_a_record_does_not_say_which_module_is_imported(install: Install) -> None:
    install("sly", "no.group", {"x": "sly:X"}, "X = 1\n")
    with pytest.raises(UserError, match="unknown kind of guidance 'sly:X'"):
        from_json('{"kind": "sly:X"}', "guidance.json")
    with pytest.raises(UserError, match="unknown alignment method 'sly:X'"):
        method("sly:X", objects=False)
    assert "sly" not in sys.modules


def test_a_format_of_others_reads_files_that_none_of_ours_knows(
    install: Install, tmp_path: Path
) -> None:
    install("verse", "spqr_checks.prompt_formats", {"poems": "verse:FORMAT"}, FORMAT)
    file = tmp_path / "poems.csv"
    file.write_text("verse\na star\n")
    assert [prompt.text for prompt in read_file(file).prompts] == ["a star"]
    assert [prompt.text for prompt in read_source(f"poems={file}").prompts] == ["a star"]


def test_a_format_may_be_an_object_of_a_package(install: Install, tmp_path: Path) -> None:
    package = install("lyrics", "no.group", {"x": "lyrics:X"}, "").parent / "rhyme"
    package.mkdir()
    (package / "lines.py").write_text(FORMAT)
    file = tmp_path / "poems.csv"
    file.write_text("verse\na star\n")
    assert len(read_source(f"rhyme.lines:FORMAT={file}").prompts) == 1


def test_names_import_no_entry_and_nothing_heavy() -> None:
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]:\n"
        "    module, attribute = name.split(':')\n"
        "    getattr(importlib.import_module(module), attribute).names()\n"
        "assert not {'torch', 'diffusers', 'transformers', 'scipy'} & set(sys.modules)\n"
    )
    places = [
        "spqr_checks.judges.registry:JUDGES",
        "spqr_checks.alignment.registry:METHODS",
        "spqr_checks.metrics.adherence:ADHERENCES",
        "spqr_checks.metrics.features:FEATURE_KINDS",
        "spqr_checks.metrics.distances:DISTANCES",
        "spqr_checks.prompts.sources:FORMATS",
        "spqr_checks.finetuning.families.registry:FAMILIES",
        "spqr_checks.generation.guidance.registry:GUIDANCES",
    ]
    subprocess.run([sys.executable, "-c", code, *places], check=True)
