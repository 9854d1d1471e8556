"""The page on architecture shows the layers that import-linter keeps and the imports have."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "spqr_checks"


def of_the_page() -> list[set[str]]:
    """The table's layers from the top: the names in code font of each row's last column."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Layers\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [set(re.findall(r"`([\w.]+)`", row[-1])) for row in rows[2:]]


def of_the_contract() -> list[set[str]]:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (contract,) = [
        c
        for c in tool["importlinter"]["contracts"]
        if c["type"] == "layers" and c["containers"] == [PACKAGE]
    ]
    assert contract["exhaustive"]
    return [set(re.split(r"\s*[:|]\s*", layer.strip("()"))) for layer in contract["layers"]]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(PACKAGE, cache_dir=None)


def test_the_page_and_the_contract_name_the_same_layers_in_the_same_order() -> None:
    assert of_the_page() == of_the_contract()


def test_the_page_names_everything_that_there_is_once(graph: grimp.ImportGraph) -> None:
    named = sorted(chain.from_iterable(of_the_page()))
    assert named == sorted(m.removeprefix(f"{PACKAGE}.") for m in graph.find_children(PACKAGE))


def test_nothing_imports_what_the_page_shows_above_it(graph: grimp.ImportGraph) -> None:
    depth = {name: n for n, layer in enumerate(of_the_page()) for name in layer}
    upward = [
        (module, imported)
        for module in graph.modules - {PACKAGE}
        for imported in graph.find_modules_directly_imported_by(module) - {PACKAGE}
        if depth[imported.split(".")[1]] < depth[module.split(".")[1]]
    ]
    assert upward == []


def test_packages_that_the_way_of_a_cell_and_the_rest_name_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = re.findall(r"`((?:\w+/)+\w+)`", text)
    here = [f for f in folders if f.split("/")[0] in set().union(*of_the_page())]
    assert here
    assert [f for f in here if not (ROOT / PACKAGE / f).is_dir()] == []


def test_the_way_of_a_cell_goes_through_what_there_is_in_at_most_ten_lines() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    way = text.split("## The way of one cell\n")[1].split("\n## ")[0].split("\n1. ")[1].strip()
    assert len(way.splitlines()) <= 10
    named = set(re.findall(r"`([a-z_]+)`", way)) - {"spqr_check", "max_images"}
    assert named <= set().union(*of_the_page())
    assert named >= {"pytest_plugin", "matrix", "checks", "runtime", "store", "scoring"}
