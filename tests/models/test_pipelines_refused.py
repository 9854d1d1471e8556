"""What is no sound pipeline is refused in one or two lines that name the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import diffusers
import pytest
import torch
from saved import TEXT, UNET, edit_json, rewrite
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import load_pipeline

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def refusal(folder: Path, **given: str) -> str:
    with pytest.raises(UserError) as raised:
        load_pipeline(str(folder), **given)
    message = str(raised.value)
    assert 1 <= len(message.splitlines()) <= 2
    return message


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors[next(key for key in sorted(tensors) if key.endswith("weight"))]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["left.over"] = torch.zeros(2)


def resize(tensors: dict[str, Tensor]) -> None:
    key = next(key for key in sorted(tensors) if key.endswith("weight"))
    tensors[key] = torch.zeros(3, 3)


def spoil(tensors: dict[str, Tensor]) -> None:
    tensors[sorted(tensors)[0]].view(-1)[0] = float("nan")


@pytest.mark.parametrize("name", [UNET, TEXT, "vae/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, ("1 missing (", "config.json")),
        (add, ("1 unexpected (left.over)", "config.json")),
        (resize, ("save_pretrained",)),
        (spoil, ("holds NaN or infinite values",)),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused(
    folder: Path, name: str, change: Callable[[dict[str, Tensor]], None], said: tuple[str, ...]
) -> None:
    rewrite(folder / name, change)
    message = refusal(folder)
    assert str((folder / name).parent) in message
    assert all(part in message for part in said)


def test_the_config_of_another_architecture_is_refused(folder: Path) -> None:
    edit_json(folder / "unet" / "config.json", layers_per_block=2)
    assert f"{folder / 'unet'} cannot be loaded" in refusal(folder)


@pytest.mark.parametrize(("name", "keep"), [(UNET, -1), (TEXT, -1), (UNET, 500), (TEXT, 0)])
def test_a_truncated_file_is_named(folder: Path, name: str, keep: int) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(folder)
    assert str(path) in message
    assert "truncated" in message


@pytest.mark.parametrize("name", [UNET, TEXT])
def test_a_component_without_weights_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{(folder / name).parent} holds no safetensors weights" in refusal(folder)


@pytest.mark.parametrize("name", ["unet", "text_encoder", "scheduler", "tokenizer"])
def test_a_missing_component_is_named(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)
    assert f"{folder / name} is missing, but model_index.json names it" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["unet/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"]
)
@pytest.mark.parametrize("text", [None, "{"])
def test_a_missing_or_broken_config_is_refused(folder: Path, name: str, text: str | None) -> None:
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    assert str(folder) in refusal(folder)


def test_a_missing_tokenizer_file_is_refused(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert str(folder) in refusal(folder)


def test_a_missing_shard_is_refused(tiny_pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    tiny_pipeline.save_pretrained(tmp_path / "p", max_shard_size="100KB")
    next((tmp_path / "p" / "unet").glob("*-00002-of-*.safetensors")).unlink()
    assert str(tmp_path / "p" / "unet") in refusal(tmp_path / "p")


def test_a_folder_that_is_no_pipeline_is_refused(folder: Path) -> None:
    assert "model_index.json is missing" in refusal(folder / "unet")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '"a"', "\xff"])
def test_an_index_that_cannot_be_understood_is_refused(folder: Path, text: str) -> None:
    (folder / "model_index.json").write_text(text, encoding="latin-1")
    assert "model_index.json cannot be understood" in refusal(folder)


def test_an_index_without_a_component_that_the_class_needs_is_refused(folder: Path) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    del index["unet"]
    path.write_text(json.dumps(index))
    assert f"{path} names no unet, which StableDiffusionPipeline needs" in refusal(folder)


@pytest.mark.parametrize("name", ["MyPipeline", "UNet2DConditionModel", "logging", None])
def test_a_class_that_is_no_pipeline_of_diffusers_is_refused(
    folder: Path, name: str | None
) -> None:
    edit_json(folder / "model_index.json", _class_name=name)
    assert f"{name!r} is no pipeline of diffusers" in refusal(folder)


@pytest.mark.parametrize(
    "entry", [["my_module", "MyUNet"], ["diffusers", "MyUNet"], ["os", "system"]]
)
def test_code_that_comes_with_a_model_is_never_run(folder: Path, entry: list[str]) -> None:
    edit_json(folder / "model_index.json", unet=entry)
    (folder / "unet" / "my_module.py").write_text("raise SystemExit('was run')")
    message = refusal(folder)
    assert f"unet is a {entry[0]}.{entry[1]}" in message
    assert "never run" in message


def test_a_pipeline_that_draws_without_a_denoiser_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Latents(diffusers.DiffusionPipeline):  # type: ignore[misc]
        def __init__(self, vae: nn.Module) -> None:
            super().__init__()
            self.register_modules(vae=vae)

    monkeypatch.setattr(diffusers, "Latents", Latents, raising=False)
    edit_json(folder / "model_index.json", _class_name="Latents")
    assert "neither a unet nor a transformer" in refusal(folder)


def test_a_single_file_is_refused_with_the_command_that_makes_a_folder(folder: Path) -> None:
    message = refusal(folder / UNET)
    assert "is a single file; a pipeline folder is needed" in message
    assert message.splitlines()[1].startswith(f"spqr convert {folder / UNET} --out ")


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "is a pickle" in refusal(folder)


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    assert "unknown dtype 'int8'; use one of float32" in refusal(folder, dtype="int8")


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_refused(folder: Path, device: str) -> None:
    assert f"cannot be put on {device!r}" in refusal(folder, device=device)
