"""Files that cannot be what their configuration describes, found before a weight is read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from saved import TEXT, UNET, edit_json, rewrite

from spqr_checks.models import headers

Change = Callable[[Path], Any]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were loaded after all."""
    loaded: list[Path] = []
    load = headers.load_network

    def noted(folder: Path, *args: Any) -> Any:
        loaded.append(folder)
        return load(folder, *args)

    monkeypatch.setattr(headers, "load_network", noted)
    return loaded


def first(tensors: dict[str, Any]) -> str:
    return next(key for key in sorted(tensors) if key.endswith("weight"))


def test_a_whole_pipeline_has_no_problem_and_nothing_is_loaded(
    tiny_pipeline_dir: Path, loads: list[Path]
) -> None:
    base = str(tiny_pipeline_dir)
    assert headers.check("", base) == []
    assert headers.check(base, base) == []
    assert headers.check(f"denoiser={base}", base) == []
    assert headers.check(f"text-encoder={tiny_pipeline_dir / TEXT}", base) == []
    assert not loads


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: rewrite(f / UNET, lambda t: t.pop(first(t))), "1 missing"),
        (lambda f: rewrite(f / TEXT, lambda t: t.update(x=torch.zeros(1))), r"1 unexpected \(x\)"),
        (lambda f: rewrite(f / UNET, lambda t: t.update({first(t): torch.ones(3)})), "fit|shape"),
        (lambda f: (f / UNET).write_bytes((f / UNET).read_bytes()[:-4]), "truncated"),
        (lambda f: edit_json(f / "unet/config.json", block_out_channels=[8, 24]), "unet"),
        (lambda f: edit_json(f / "unet/config.json", block_out_channels="x"), "config.json"),
        (lambda f: (f / "text_encoder/config.json").write_text("{"), "text_encoder"),
        (lambda f: shutil.rmtree(f / "vae"), "vae is missing"),
        (lambda f: edit_json(f / "model_index.json", unet=["diffusers", "Nothing"]), "Nothing"),
        (lambda f: (f / "model_index.json").write_text("[]"), "cannot be understood"),
    ],
)
def test_what_does_not_fit_is_said_without_an_image(
    folder: Path, tiny_pipeline_dir: Path, change: Change, message: str
) -> None:
    change(folder)
    for named, given in (
        ("base", ("", str(folder))),
        ("candidate", (str(folder), str(tiny_pipeline_dir))),
    ):
        ((field, problem),) = headers.check(*given)
        assert field == named
        assert str(folder) in problem
        assert re.search(message, problem)


def test_every_problem_is_said_at_once(folder: Path, tiny_pipeline_dir: Path) -> None:
    for name in (UNET, TEXT):
        (folder / name).write_bytes(b"")
    adapter = folder / "lora.safetensors"
    halves = {"A": torch.ones(2, 4), "B": torch.ones(4, 2)}
    save_file({f"unet.x.lora_{half}.weight": tensor for half, tensor in halves.items()}, adapter)
    problems = headers.check(str(folder), str(tiny_pipeline_dir), (str(adapter),))
    wrong = ("unet", "text_encoder", "lora.safetensors")
    assert [sum(str(folder / name) in p for _, p in problems) for name in wrong] == [1, 1, 1]
    assert [field for field, _ in problems] == ["candidate", "candidate", "adapters"]


def test_a_replacing_network_must_have_the_base_s_weights(
    folder: Path, tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    base = str(tiny_pipeline_dir)
    alone = tmp_path / "unet.safetensors"
    tensors = load_file(folder / UNET)
    tensors.pop(first(tensors))
    save_file(tensors, alone)
    ((_, problem),) = headers.check(f"denoiser={alone}", base)
    assert str(alone) in problem
    config = json.loads((folder / "unet/config.json").read_text())
    edit_json(folder / "unet/config.json", cross_attention_dim=config["cross_attention_dim"] * 2)
    ((_, problem),) = headers.check(f"denoiser={folder / 'unet'}", base)
    assert "another architecture" in problem
    ((_, problem),) = headers.check(f"text-encoder-2={folder}", base)
    assert "text_encoder_2" in problem


def test_names_of_older_libraries_are_settled_by_the_loader(
    folder: Path, loads: list[Path]
) -> None:
    """Attention of autoencoders was called query, key, value and proj_attn."""
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    renamed = {}
    for key, tensor in tensors.items():
        for new, old in older.items():
            key = key.replace(f".{new}.", f".{old}.")
        renamed[key] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path, metadata={"format": "pt"})
    assert headers.check("", str(folder)) == []
    assert loads == [folder / "vae"]
