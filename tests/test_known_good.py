"""The known-good set: complete, free of what is known to fail, and told where a run leaves it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from spqr_checks import known_good
from spqr_checks.cli.main import main
from spqr_checks.known_good import LIBRARIES, differing, failing, remark
from spqr_checks.reports.json_file import environment

CHECKOUT = Path(__file__).parents[1]
SETS = [known_good.FILE, CHECKOUT / "constraints" / "lowest.txt"]
PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]


def pinned(path: Path) -> list[Requirement]:
    lines = path.read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def asked(*extras: str) -> list[Requirement]:
    optional = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *(text for name in extras for text in optional[name])]
    return [Requirement(text) for text in texts]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def have(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    has = known_good.installed
    monkeypatch.setattr(known_good, "installed", lambda n: versions.get(n) or has(n))


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.name)
def test_a_set_pins_exact_versions_and_names_no_index_and_no_path(path: Path) -> None:
    for requirement in pinned(path):
        (specifier,) = requirement.specifier
        assert specifier.operator == "=="
        assert requirement.url is None
        assert not requirement.extras
    assert not re.search(r"://|/\w+/|--|file:", path.read_text())


def test_the_known_good_set_covers_every_extra_within_the_ranges_of_the_project() -> None:
    versions = known_good.known_good()
    for requirement in asked(*PROJECT["optional-dependencies"]):
        assert requirement.specifier.contains(versions[normal(requirement.name)])


def test_the_lowest_set_is_the_lower_bounds() -> None:
    (path,) = SETS[1:]
    versions = {one.name: str(next(iter(one.specifier)).version) for one in pinned(path)}
    for requirement in asked("dev"):
        bounds = [s.version for s in requirement.specifier if s.operator == ">="]
        (lowest,) = bounds
        found = Requirement(f"x=={lowest}.*").specifier
        assert found.contains(versions[normal(requirement.name)]), requirement


def test_no_combination_that_is_known_to_fail_is_in_the_known_good_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, **known_good.known_good())
    assert failing() == []
    assert differing() == {}
    assert remark(differing()) == ""


def test_every_library_that_counts_is_in_the_set() -> None:
    assert set(LIBRARIES) <= known_good.known_good().keys()


def test_another_minor_version_is_told_and_another_patch_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = known_good.known_good()
    major, minor, *_ = known["torch"].split(".")
    have(monkeypatch, **known | {"torch": f"{major}.{minor}.999+cpu"})
    assert differing() == {}
    other = f"{major}.{int(minor) + 1}.0+cu130"
    have(monkeypatch, **known | {"torch": other})
    assert differing() == {"torch": (other, known["torch"])}
    assert remark(differing()).endswith(f"torch {other} (tested: {known['torch']})")
    assert environment()["not_known_good"] == {"torch": [other, known["torch"]]}


@pytest.mark.parametrize(
    ("transformers", "peft", "fails"),
    [("5.24.0", "0.21.2", True), ("5.23.0", "0.21.2", False), ("5.24.0", "0.22.0", False)],
)
def test_a_combination_that_fails_is_named_with_its_remedy(
    transformers: str, peft: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, transformers=transformers, peft=peft)
    said = failing()
    assert bool(said) is fails
    for line in said:
        assert line.startswith(
            f"transformers {transformers} with peft {peft}: transformers refuses"
        )
        assert line.endswith(": pip install 'transformers<5.24'")


@pytest.mark.heavy
def test_doctor_names_it_and_other_versions_and_says_that_runs_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    have(monkeypatch, transformers="5.24.0", peft="0.21.2")
    assert main(["doctor", "--store", str(tmp_path)]) == 0
    said = [x for x in capsys.readouterr().out.splitlines() if x.startswith("versions: ")]
    assert said[0] == f"versions: {failing()[0]}"
    assert "transformers 5.24.0 (tested: " in said[1]


def test_the_make_file_and_the_ci_install_from_the_set() -> None:
    text = (CHECKOUT / "Makefile").read_text()
    assert f"KNOWN_GOOD := {known_good.FILE.relative_to(CHECKOUT)}\n" in text
    recipe = text.split("$(VENV)/installed:")[1].split("\n\n")[0]
    installs = [line for line in recipe.splitlines() if "pip install" in line]
    assert len(installs) == 2
    assert all("--constraint $(KNOWN_GOOD)" in line for line in installs)
    assert not re.search("pip install", (CHECKOUT / ".ci" / "run").read_text())
