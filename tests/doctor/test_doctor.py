"""`spqr doctor`: what works here, what does not, and the exit code."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spqr_checks.cli.main import main
from spqr_checks.doctor import machine, packages
from spqr_checks.doctor.choices import choices
from spqr_checks.doctor.packages import Package, default_problems, import_problem, requirements
from spqr_checks.judges import registry as judges
from spqr_checks.metrics import adherence
from spqr_checks.models import sources
from spqr_checks.store.store import Store


def forget() -> None:
    for cache in (import_problem, packages._owners):
        cache.cache_clear()


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What was importable in one test may not be in the next."""
    forget()
    yield
    forget()


def examined(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json", "--store", str(folder)])
    return code, json.loads(capsys.readouterr().out)


def remedy(name: str, kind: str = "judge") -> str:
    (found,) = [one for one in choices() if (one.kind, one.name) == (kind, name)]
    assert found.usable is not bool(found.remedy)
    return found.remedy


@pytest.mark.heavy
def test_the_default_path_works_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "s")
    store.build("images", {"n": 1}, lambda p: (p / "a.txt").write_text("x" * 3000) and None)
    code, found = examined(tmp_path / "s", capsys)
    assert found["problems"] == []
    assert (code, found["works"]) == (0, True)
    versions = {one["name"]: one["version"] for one in found["packages"]}
    import torch

    # a build names itself behind a plus, and only some say so in what is installed
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["machine"]["store"] | {"mib": 0} == {
        "path": str(tmp_path / "s"),
        "writable": True,
        "entries": 1,
        "mib": 0,
    }
    assert found["machine"]["workers"]["at_most"] >= 1
    chosen = {(one["kind"], one["name"]) for one in found["choices"] if one["usable"]}
    assert {("judge", "classifier"), ("adherence", "clip"), ("distance", "fid")} <= chosen


@pytest.mark.heavy
def test_a_module_that_cannot_be_imported_is_named_and_the_code_is_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    code, found = examined(tmp_path, capsys)
    assert (code, found["works"]) == (3, False)
    (problem,) = [one for one in found["problems"] if one.startswith("peft:")]
    assert "import peft: ModuleNotFoundError" in problem
    assert problem.endswith("pip install --upgrade spqr-checks")
    # what does not need it is still usable, in the tables as well
    assert main(["doctor", "--store", str(tmp_path)]) == 3
    shown = capsys.readouterr().out
    assert "the default path does not work" in shown
    assert "problem: peft" in shown


@pytest.mark.heavy
def test_a_torchvision_that_does_not_fit_torch_is_the_problem_and_not_what_fails_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["doctor", "--store", str(tmp_path / "s")])  # libraries remember what they once found
    capsys.readouterr()
    forget()
    site = tmp_path / "site"
    text = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    for name, content in (
        ("torchvision/__init__.py", text),
        ("torchvision-0.28.0.dist-info/METADATA", "Name: torchvision\nVersion: 0.28.0\n"),
        ("torchvision-0.28.0.dist-info/top_level.txt", "torchvision\n"),
    ):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setitem(sys.modules, "peft", None)
    code, found = examined(tmp_path / "s", capsys)
    assert code == 3
    (problem,) = found["problems"]
    assert problem.startswith("torchvision 0.28.0 does not fit torch ")
    assert "operator torchvision::nms does not exist" in problem
    assert re.search(r"--force-reinstall torch==[\d.]+ torchvision\)", problem)
    assert "pip uninstall torchvision" in problem
    assert remedy("Stable Diffusion XL", "models").startswith("import torchvision: RuntimeError")


def test_a_torch_that_is_broken_itself_is_not_blamed_on_torchvision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packages, "installed", lambda name: "1.0")
    monkeypatch.setattr(packages, "import_problem", lambda name: f"import {name}: broken")
    assert packages.torchvision_problem() == ""


def test_what_a_lazy_importer_hides_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_one.py").write_text(
        "try:\n    1 / 0\nexcept Exception as error:\n"
        "    raise ModuleNotFoundError('Could not import module X') from error\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert import_problem("lazy_one") == "import lazy_one: ZeroDivisionError: division by zero"


@pytest.mark.heavy
def test_weights_that_are_not_there_are_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_BUILT_IN_FOLDER", tmp_path)
    code, found = examined(tmp_path, capsys)
    assert code == 3
    assert sum("its weights are not in this installation" in p for p in found["problems"]) == 3


@pytest.mark.heavy
def test_a_store_that_cannot_be_written_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_text("no folder")
    code, found = examined(path, capsys)
    assert code == 3
    assert found["machine"]["store"]["writable"] is False
    assert [str(path) in problem for problem in found["problems"]] == [True]
    assert found["refused"] == []  # it is said once


PROMPTS = """prompt,kind,concept,category
a box on a table,harmful,box,things
a cup on a table,lookalike,bxo,things
a tree,benign,,
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('profile.lite.learning_rate = inf\nreport = "kept"', ["profile.lite.learning_rate"]),
        (
            'report = "taken"\nadapters = ["none.safetensors"]\nreference = "empty"\n'
            'calibration = "none.json"\n',
            ["taken", "none.safetensors", "empty", "none.json"],
        ),
        ('prompts = ["p.csv"]\n', ["'bxo'"]),
    ],
    ids=["what settings say", "where they lead", "what prompts say"],
)
def test_what_a_run_would_refuse_is_said_in_the_words_of_check(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    said: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(f"[tool.spqr]\n{written}")
    (tmp_path / "p.csv").write_text(PROMPTS)
    (tmp_path / "taken").touch()
    (tmp_path / "empty").mkdir()
    before = sorted(os.listdir(tmp_path))
    code, found = examined(tmp_path / "s", capsys)
    assert (code, found["works"], found["problems"]) == (3, False, [])
    for word in said:
        assert any(word in reason for reason in found["refused"]), (word, found["refused"])
    assert main(["check", "--spqr-store", str(tmp_path / "s")]) == 4
    checked = " ".join(capsys.readouterr().err.split())
    assert all(" ".join(reason.split()) in checked for reason in found["refused"])
    assert sorted(os.listdir(tmp_path)) == before
    assert main(["doctor"]) == 3
    shown = capsys.readouterr().out
    assert f"settings: {found['refused'][0]}" in shown
    assert "a run under these settings would not begin" in shown


class TestChoices:
    def test_every_judge_and_metric_is_listed(self) -> None:
        found = {(one.kind, one.name) for one in choices()}
        assert {("judge", name) for name in judges.JUDGES.names()} <= found
        assert {("adherence", name) for name in adherence.ADHERENCES.names()} <= found

    @pytest.mark.heavy
    def test_what_is_not_installed_comes_with_its_extra(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        has = packages.installed
        without = {"nudenet", "open-clip-torch", "torchvision", "sentencepiece"}
        monkeypatch.setattr(packages, "installed", lambda n: None if n in without else has(n))
        assert remedy("nudenet") == "pip install 'spqr-checks[nudenet]'"
        assert remedy("open_clip", "adherence") == "pip install 'spqr-checks[open-clip]'"
        assert remedy("FLUX.1", "models") == "pip install 'spqr-checks[sentencepiece]'"
        assert remedy("Stable Diffusion XL", "models") == ""
        assert remedy("classifier") == ""

    @pytest.mark.heavy
    def test_what_is_installed_but_broken_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        assert remedy("classifier").startswith("import transformers: ModuleNotFoundError")
        assert remedy("PixArt", "models").startswith("import transformers")
        assert remedy("kid", "distance") == ""

    @pytest.mark.heavy
    def test_a_judge_whose_file_is_broken_does_not_end_the_list(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kind = judges.kind
        monkeypatch.setattr(judges.JUDGES, "names", lambda: ("broken", "clip"))
        monkeypatch.setattr(
            judges.JUDGES, "get", lambda name: kind(name) if name == "clip" else 1 / 0
        )
        assert remedy("broken").startswith("ZeroDivisionError")
        assert remedy("clip") == ""

    @pytest.mark.heavy
    def test_remedies_are_printed_with_their_brackets(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        has = packages.installed
        monkeypatch.setattr(packages, "installed", lambda n: None if n == "nudenet" else has(n))
        assert main(["doctor", "--store", str(tmp_path)]) == 0
        assert "pip install 'spqr-checks[nudenet]'" in capsys.readouterr().out


class TestPackages:
    def test_requirements_are_held_against_what_is_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = [
            "numpy>=1.26",
            "rich>=999",
            "no-such-thing>=1",
            'nudenet>=3; extra == "nudenet"',
            'absent-thing>=1; extra == "more"',
            'ruff>=0.1; extra == "dev"',
            'old-thing>=1; python_version < "3"',
        ]
        monkeypatch.setattr(packages, "requires", lambda name: asked)
        found = {one.name: one for one in requirements()}
        assert set(found) == {"numpy", "rich", "no-such-thing", "nudenet", "absent-thing"}
        assert found["numpy"].problem == ""
        assert found["rich"].problem == ">=999 is needed"
        assert found["no-such-thing"] == Package("no-such-thing", None, "default", "not installed")
        assert found["absent-thing"] == Package("absent-thing", None, "more", "")
        assert found["nudenet"].needed_by == "nudenet"
        problems = default_problems(found.values())
        assert [problem.split(":")[0] for problem in problems] == ["no-such-thing", "rich"]


def test_the_hub_s_cache_and_offline_mode_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    (tmp_path / "models--owner--name").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert machine.hub() == {"cache": str(tmp_path), "models": 1, "offline": True}
    found, _ = machine.machine(tmp_path)
    (line,) = [line for line in machine.lines(found) if line.startswith("Hub:")]
    assert line == f"Hub: 1 models in {tmp_path}; offline: only these"


def test_devices_are_told_with_their_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (3 << 30, (8 + i) << 30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"card {i}")
    found, _ = machine.machine(tmp_path)
    said = machine.lines(found)
    assert "device: cuda:1 card 1, 3.0 of 9.0 GiB free" in said
    assert any(line.endswith("one a device: spqr run -n 2") for line in said)


@pytest.mark.heavy
def test_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--store", str(tmp_path / "new")])
    capsys.readouterr()
    assert os.listdir(tmp_path) == []
