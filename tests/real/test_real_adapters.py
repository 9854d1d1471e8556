"""Adapters on every pipeline class: saved, loaded again, and acting as written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from real_classes import CLASSES, sampler
from safetensors.torch import load_file, save_file
from test_real_drawing import PROMPTS, SEEDS, pixels
from torch import Tensor
from written_adapters import ALPHA, RANK, fill, write_adapter

from spqr_checks.errors import UserError
from spqr_checks.finetuning.families.registry import family_of
from spqr_checks.generation.sampling import generate
from spqr_checks.models import adapters
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import assert_differs, copy_state, denoiser_of

WAYS = [(name, kind) for name in CLASSES for kind in ("peft", "diffusers")]
WAYS.remove(("pixart", "diffusers"))  # its pipeline has no writer of LoRA files


pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(pipe: Any, name: str) -> np.ndarray:
    return pixels(generate(pipe, PROMPTS[:2], SEEDS[:2], sampler(name)))


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "kind"), WAYS)
def test_a_reloaded_adapter_gives_the_same_images_and_acts_as_scale_times_b_times_a(
    real_class: Callable[[str], Path], tmp_path: Path, name: str, kind: str
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    before, plain = copy_state(pipe), drawn(pipe, name)
    added = write_adapter(pipe, tmp_path / "lora", kind)
    adapters.load_user_adapter(pipe, tmp_path / "lora", scale=0.25)
    adapted = drawn(pipe, name)
    assert not np.array_equal(adapted, plain)

    again = load_pipeline(str(real_class(name)))
    adapters.load_user_adapter(again, tmp_path / "lora", scale=0.25)
    assert np.array_equal(drawn(again, name), adapted)
    assert_differs(again, before)

    adapters.merge(pipe)
    after = copy_state(pipe)
    assert after.keys() == before.keys()
    assert len(added) >= 7
    for key, weight in after.items():
        expected: Tensor = before[key] + 0.25 * added[key] if key in added else before[key]
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-6)


def by_diffusers(pipe: Any, folder: Path) -> None:
    pipe.load_lora_weights(folder)


def by_peft(pipe: Any, folder: Path) -> None:
    PeftModel.from_pretrained(denoiser_of(pipe), folder)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "alpha"), [("sd1", float(RANK)), *((name, ALPHA) for name in CLASSES)]
)
def test_plain_diffusers_and_peft_draw_our_images_with_our_adapters(
    real_class: Callable[[str], Path], tmp_path: Path, name: str, alpha: float
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    targets, plain = family_of(pipe).targets, drawn(pipe, name)
    adapters.add_lora(denoiser_of(pipe), RANK, alpha, targets, 0, "made")
    fill(denoiser_of(pipe), "made", 0.5)
    adapters.save_adapter(pipe, tmp_path, "made", {})
    ours = drawn(pipe, name)
    assert not np.array_equal(ours, plain)
    # diffusers has no loader of adapters for PixArt
    readers = (by_peft,) if name == "pixart" else (by_diffusers, by_peft)
    for load in (adapters.load_user_adapter, *readers):
        again = load_pipeline(str(real_class(name)))
        load(again, tmp_path)
        assert np.array_equal(drawn(again, name), ours), load


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_an_adapter_of_another_transformer_is_refused(
    real_class: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    other = "flux" if name == "sd3" else "sd3"
    for kind in ("peft", "diffusers"):
        folder = tmp_path / kind
        write_adapter(load_pipeline(str(real_class(other))), folder, kind)
        pipe = load_pipeline(str(real_class(name)))
        before = copy_state(pipe)
        with pytest.raises(UserError, match="another architecture|made for this architecture"):
            adapters.load_user_adapter(pipe, folder)
        assert denoiser_of(pipe).state_dict().keys() == before.keys()


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_a_kohya_adapter_of_a_unet_acts_with_its_alphas(
    real_class: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    added = write_adapter(pipe, tmp_path, "diffusers")
    (source,) = tmp_path.glob("*.safetensors")
    tensors: dict[str, Tensor] = {}
    for key, tensor in load_file(source).items():
        layer, _, side = key.removesuffix(".weight").rpartition(".lora_")
        stem = f"lora_unet_{layer.removeprefix('unet.').replace('.', '_')}"
        tensors[f"{stem}.lora_{'down' if side == 'A' else 'up'}.weight"] = tensor
        tensors[f"{stem}.alpha"] = torch.tensor(ALPHA)
    path = tmp_path / "kohya" / "lora.safetensors"
    path.parent.mkdir()
    save_file(tensors, path)
    before = copy_state(pipe)
    adapters.load_user_adapter(pipe, path, scale=0.5)
    adapters.merge(pipe)
    for key, weight in copy_state(pipe).items():
        expected = before[key] + 0.5 * added[key] if key in added else before[key]
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-5)


def kohya_flux(folder: Path) -> Path:
    """The joint projections of a Flux adapter as kohya's trainer names them, with alphas."""
    (source,) = folder.glob("*.safetensors")
    tensors = load_file(source)
    stem = "transformer.transformer_blocks.0.attn"
    down = torch.randn(RANK, tensors[f"{stem}.to_q.lora_A.weight"].shape[1])
    up = torch.cat([tensors[f"{stem}.to_{part}.lora_B.weight"] for part in "qkv"])
    layer = "lora_unet_double_blocks_0_img_attn_qkv"
    path = folder / "kohya" / "flux.safetensors"
    path.parent.mkdir()
    weights = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(ALPHA)}
    save_file({f"{layer}.{key}": value for key, value in weights.items()}, path)
    return path


def test_a_kohya_adapter_of_flux_acts_with_its_alpha(
    real_class: Callable[[str], Path], tmp_path: Path
) -> None:
    pipe = load_pipeline(str(real_class("flux")))
    write_adapter(pipe, tmp_path, "diffusers")
    path = kohya_flux(tmp_path)
    tensors = load_file(path)
    up, down = (
        next(v for key, v in tensors.items() if f"lora_{side}" in key) for side in ("up", "down")
    )
    before = copy_state(pipe)
    adapters.load_user_adapter(pipe, path, scale=0.5)
    adapters.merge(pipe)
    after = copy_state(pipe)
    added = 0.5 * ALPHA / RANK * up @ down
    joint = torch.cat(
        [
            after[f"transformer_blocks.0.attn.to_{part}.weight"]
            - before[f"transformer_blocks.0.attn.to_{part}.weight"]
            for part in "qkv"
        ]
    )
    torch.testing.assert_close(joint, added, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_an_xlabs_adapter_of_flux_adds_b_times_a_as_it_is(
    real_class: Callable[[str], Path], tmp_path: Path, prefix: str
) -> None:
    pipe = load_pipeline(str(real_class("flux")))
    before = copy_state(pipe)
    wide = before["transformer_blocks.0.attn.to_q.weight"].shape[0]
    halves = {
        f"{prefix}{block}_blocks.0.processor.{layer}": (
            torch.randn(RANK, wide), torch.randn(wide * (3 if "qkv" in layer else 1), RANK)
        )
        for block, layer in [
            ("double", "qkv_lora1"), ("double", "qkv_lora2"), ("double", "proj_lora1"),
            ("double", "proj_lora2"), ("single", "qkv_lora"),
        ]
    }  # fmt: skip
    tensors = {f"{layer}.down.weight": a for layer, (a, _) in halves.items()}
    tensors |= {f"{layer}.up.weight": b for layer, (_, b) in halves.items()}
    save_file(tensors, path := tmp_path / "xlabs.safetensors")
    adapters.load_user_adapter(pipe, path, scale=0.5)
    adapters.merge(pipe)
    after = copy_state(pipe)
    changed = {key: after[key] - before[key] for key in after if not after[key].equal(before[key])}
    names = {
        "double_blocks.0.processor.qkv_lora1": ["to_q", "to_k", "to_v"],
        "double_blocks.0.processor.qkv_lora2": ["add_q_proj", "add_k_proj", "add_v_proj"],
        "double_blocks.0.processor.proj_lora1": ["to_out.0"],
        "double_blocks.0.processor.proj_lora2": ["to_add_out"],
        "single_blocks.0.processor.qkv_lora": ["to_q", "to_k", "to_v"],
    }
    for layer, (a, b) in halves.items():
        layer = layer.removeprefix(prefix)
        block = "transformer_blocks" if layer[0] == "d" else "single_transformer_blocks"
        parts = [changed.pop(f"{block}.0.attn.{name}.weight") for name in names[layer]]
        torch.testing.assert_close(torch.cat(parts), 0.5 * b @ a, rtol=1e-4, atol=1e-5)
    assert not changed


def test_a_layer_whose_name_others_end_with_is_the_only_one_that_changes(
    real_class: Callable[[str], Path], tmp_path: Path
) -> None:
    pipe = load_pipeline(str(real_class("flux")))
    before = copy_state(pipe)
    assert any(key.endswith(".proj_out.weight") for key in before)
    out, wide = before["proj_out.weight"].shape
    halves = {"A": torch.ones(RANK, wide), "B": torch.ones(out, RANK)}
    tensors = {f"transformer.proj_out.lora_{half}.weight": t for half, t in halves.items()}
    save_file(tensors, path := tmp_path / "one.safetensors")
    adapters.load_user_adapter(pipe, path, alpha="rank")
    adapters.merge(pipe)
    after = copy_state(pipe)
    assert [key for key in after if not after[key].equal(before[key])] == ["proj_out.weight"]


def test_a_lora_file_without_alpha_is_refused_for_a_transformer_too(
    real_class: Callable[[str], Path], tmp_path: Path
) -> None:
    pipe = load_pipeline(str(real_class("sd3")))
    write_adapter(pipe, tmp_path, "diffusers")
    (path,) = tmp_path.glob("*.safetensors")
    record = {"transformer.target_modules": ["to_q"]}
    save_file(load_file(path), path, metadata={"lora_adapter_metadata": json.dumps(record)})
    with pytest.raises(UserError, match="alpha is not on record"):
        adapters.load_user_adapter(pipe, path)
