"""Methods are found by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spqr_checks import alignment
from spqr_checks.alignment import registry
from spqr_checks.errors import UserError
from spqr_checks.settings import load_settings

NEW = """
from spqr_checks.alignment.method import Method, Options

class NewOptions(Options):
    rate: float = 0.5

METHOD = Method("brandnew", NewOptions, lambda *_: None)
"""


def test_every_method_goes_by_the_name_of_its_file() -> None:
    assert set(registry.METHODS.names()) >= {"esd", "uce"}
    for name in registry.METHODS.names():
        assert registry.method(name).name == name


def test_an_unknown_method_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(UserError, match=r"'esdd'; there are: .*esd.*uce"):
        registry.method("esdd")


def test_shared_parts_are_no_methods() -> None:
    for name in ("registry", "request", "method", "parts"):
        with pytest.raises(UserError):
            registry.method(name)


def test_the_miniature_s_preset_sets_every_method_that_takes_steps(tmp_path: Path) -> None:
    preset = load_settings(tmp_path, {}).method
    for name in registry.METHODS.names():
        options = registry.method(name).parse(preset.get(name, {}))
        trained = getattr(options, options.loss) if name == "modular-lora" else options
        taken = getattr(trained, "steps", 0)
        assert taken <= 300, f"{name}: {taken} steps of a large model's default are left"


def test_a_new_method_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brandnew.py").write_text(NEW)
    monkeypatch.setattr(alignment, "__path__", [*alignment.__path__, str(tmp_path)])
    try:
        assert registry.method("brandnew").parse({}).rate == 0.5
    finally:
        monkeypatch.undo()
        sys.modules.pop("spqr_checks.alignment.brandnew", None)
    assert "brandnew" not in registry.METHODS.names()


@pytest.mark.slow
def test_names_options_and_recipes_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from spqr_checks.alignment import registry\n"
        "for name in registry.METHODS.names():\n"
        "    method = registry.method(name); method.recipe(method.parse({}))\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'peft'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_without_an_entry_cannot_be_applied(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither an adapter nor weights"):
        registry.apply_alignment(None, tmp_path)  # type: ignore[arg-type]


def test_a_folder_with_two_entries_cannot_be_applied(tmp_path: Path) -> None:
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    (tmp_path / "denoiser.safetensors").touch()
    with pytest.raises(UserError, match="an adapter, weights at once"):
        registry.apply_alignment(None, tmp_path)  # type: ignore[arg-type]
