"""A package that is not installed: named once, with the one command that brings it."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from spqr_checks import packages
from spqr_checks.errors import UserError
from spqr_checks.packages import how_to_install, importing, remedy

ROOT = Path(__file__).parents[1]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """No optional package is installed."""
    lacks = {"sentencepiece", "protobuf", "tiktoken", "torchvision", "torchsde", "nothing"}
    has, found = packages.installed, packages.find_spec
    monkeypatch.setattr(packages, "installed", lambda n: None if n in lacks else has(n))
    monkeypatch.setattr(packages, "find_spec", lambda n: None if n in lacks else found(n))


@pytest.mark.usefixtures("without")
@pytest.mark.parametrize(
    ("said", "names", "command"),
    [
        (
            "DPMSolverSDEScheduler requires the torchsde library but it was not found. You can "
            "install it with pip: `pip install torchsde`",
            "torchsde",
            "pip install torchsde",
        ),
        ("No module named 'torchsde'", "torchsde", "pip install torchsde"),
        (
            "Sam2ImageProcessor requires the Torchvision library. Check out the instructions.",
            "torchvision",
            "pip install 'spqr-checks[vlm]'",
        ),
        (
            "None of these classes could be imported. Missing optional dependencies: torchvision. "
            "Please install the missing dependencies or select another backend.",
            "torchvision",
            "pip install 'spqr-checks[vlm]'",
        ),
        (
            "`tiktoken` is required to read a `tiktoken` file.",
            "sentencepiece, protobuf",
            "pip install 'spqr-checks[sentencepiece]'",
        ),
        (
            "You need to have sentencepiece or tiktoken installed. pip install -U torch",
            "sentencepiece, protobuf",
            "pip install 'spqr-checks[sentencepiece]'",
        ),
    ],
)
def test_what_libraries_ask_for_is_named_with_one_command(
    said: str, names: str, command: str
) -> None:
    for error in (ImportError(said), OSError("cannot be loaded")):
        if isinstance(error, OSError):
            error.__cause__ = ImportError(said)
        found = remedy(error)
        assert re.fullmatch(rf"it needs {names}, which (is|are) not installed: .*", found)
        assert found.endswith(command)
        assert found.count("install ") == 1


@pytest.mark.parametrize("said", ["pip install torch", "requires the numpy library", "no key 'x'"])
def test_what_is_installed_is_not_the_cause(said: str) -> None:
    assert remedy(ImportError(said)) == ""


@pytest.mark.heavy
def test_a_scheduler_s_missing_package_is_the_only_remedy(tmp_path: Path) -> None:
    from spqr_checks.models import sources
    from spqr_checks.models.pipelines import load_pipeline

    if packages.installed("torchsde"):
        pytest.skip("torchsde is installed")
    folder = shutil.copytree(sources.resolve("miniature"), tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DPMSolverSDEScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError) as error:
        load_pipeline(str(folder))
    assert str(error.value) == (
        f"{folder}: it needs torchsde, which is not installed: pip install torchsde"
    )


@pytest.mark.usefixtures("without")
def test_an_import_that_lacks_what_it_imports_names_that() -> None:
    with (
        pytest.raises(
            UserError, match=r"^it needs nothing, .*: pip install 'spqr-checks\[more\]'$"
        ),
        importing("it", "numpy", extra="more"),
    ):
        raise ModuleNotFoundError("No module named 'nothing.of'", name="nothing.of")


def test_a_broken_package_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(UserError, match=r"it: numpy cannot be imported \(its ABI\): pip install"),
        importing("it", "numpy"),
    ):
        raise ImportError("its ABI", name="numpy")


def test_every_extra_that_is_advised_exists_and_brings_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for package in ("protobuf", "sentencepiece", "torchvision"):
        (extra,) = re.findall(r"\[(.+)\]", how_to_install(package))
        assert any(line.startswith(package) for line in project["optional-dependencies"][extra])


def test_optional_packages_are_imported_in_one_way() -> None:
    for path in (ROOT / "spqr_checks").rglob("*.py"):
        name = path.relative_to(ROOT / "spqr_checks").as_posix()
        text = path.read_text(encoding="utf-8")
        if name != "packages.py":
            assert "except ModuleNotFoundError" not in text, name
            # fcntl, which is absent on a system rather than in an installation
            assert "except ImportError" not in text or name == "cli/align.py", name
            assert "pip install 'spqr" not in text, name
