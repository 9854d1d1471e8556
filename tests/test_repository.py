"""Files for people who work on the project: they name what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(path: str) -> Any:
    # the base loader leaves words as they are; YAML 1.1 takes GitHub's `on` for a truth
    return yaml.load((ROOT / path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def recipe(target: str) -> str:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.M)[0]


def test_pushes_and_pull_requests_are_held_to_what_the_project_runs_itself() -> None:
    workflow = read(".github/workflows/ci.yml")
    assert {"push", "pull_request"} <= workflow["on"].keys()
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    tested = {f"Programming Language :: Python :: {v}" for v in job["strategy"]["matrix"]["python"]}
    assert tested <= set(PROJECT["classifiers"])


def test_workflows_use_one_version_of_each_action() -> None:
    files = [*ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("docs/workflows/g*b.yml")]
    used = {use for f in files for use in re.findall(r"uses: (\S+)", f.read_text("utf-8"))}
    actions = [use.split("@")[0] for use in used]
    assert actions
    assert len(actions) == len(set(actions)), sorted(used)


def test_what_must_pass_includes_tests_wheel_and_pages() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    made = {word for line in re.findall(r"^\$make (.*)$", script, re.M) for word in line.split()}
    assert made >= {"lint", "docs", "unlinted", "wheel"}
    assert "docs" in re.search(r"EXTRAS=([\w,]+)", script)[1].split(",")
    assert "pytest tests -n" in recipe("unlinted")
    assert "$(MAKE) unlinted" in recipe("test")
    assert "--strict" in recipe("docs")


def test_quick_runs_lint_and_every_test_but_those_that_take_long() -> None:
    assert "$(QUICK)" in recipe("quick")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^PYTEST := -m pytest tests .*-n \$\(WORKERS\)", makefile, re.M)
    without = re.search(r'^QUICK := \$\(PYTEST\) -m "(.*)"$', makefile, re.M)
    assert without is not None
    assert without[1] == "not trains and not slow and not heavy"
    assert "lint" in re.search(r"^quick: (.*)$", makefile, re.M)[1].split()


def test_hooks_are_the_linters_of_make_lint_with_their_settings() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    hooks = {hook["id"]: hook["entry"] for hook in repository["hooks"]}
    assert list(hooks) == ["ruff", "ruff-format", "mypy"]
    for entry in hooks.values():
        command = entry.replace(" --force-exclude", "").removeprefix(".venv/bin/")
        assert f"$(BIN)/{command}" in recipe("lint")


def test_issue_forms_ask_what_a_maintainer_needs() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        form = read(str(path.relative_to(ROOT)))
        assert {"name", "description", "body"} <= form.keys()
        fields = [field["id"] for field in form["body"] if "id" in field]
        assert len(fields) == len(set(fields)) > 1
    assert "spqr doctor" in (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8")


def test_the_citation_is_of_this_version_and_of_nobody_else() -> None:
    citation = read("CITATION.cff")
    assert citation["title"] == PROJECT["name"]
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == [{"name": "spqr-checks contributors"}]


def test_the_changelog_has_this_version_below_what_is_not_released() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+?)\]", text, re.M)[:2] == ["Unreleased", PROJECT["version"]]
    sections = set(re.findall(r"^### (.+)", text, re.M))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_page_is_in_the_site_s_navigation_once() -> None:
    pages = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(pages) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_the_site_is_built_without_complaint_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs; .ci/run has it")
    pytest.importorskip("material", reason="needs the extra docs; .ci/run has it")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?([^\" >]+)", text)
        assert loaded
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page.name
