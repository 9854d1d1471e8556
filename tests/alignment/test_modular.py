"""The seal on a safety adapter: what it says, and every way in which it is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from spqr_checks.alignment import modular
from spqr_checks.alignment.registry import apply_alignment
from spqr_checks.errors import UserError
from spqr_checks.models import adapters, weights


@pytest.fixture
def sealed(tiny_pipeline: StableDiffusionPipeline, tmp_path: Path) -> Path:
    """A sealed safety adapter for the tiny pipeline, which is left as it was."""
    folder = tmp_path / "safety"
    make_adapter(tiny_pipeline, folder, 1)
    modular.seal(folder)
    return folder


def make_adapter(pipe: StableDiffusionPipeline, folder: Path, seed: int) -> None:
    parameters = adapters.add_lora(pipe.unet, 2, 2.0, ("attn2.to_k", "attn2.to_v"), seed, "made")
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    adapters.save_adapter(pipe, folder, "made", {})
    adapters.remove(pipe, "made")
    pipe.unet.requires_grad_(True)


def edit(path: Path, **changes: Any) -> None:
    record = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(record), encoding="utf-8")


def test_the_seal_names_the_adapter_and_its_base(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path
) -> None:
    record = json.loads((sealed / "modular.json").read_text(encoding="utf-8"))

    def sha256(name: str) -> str:
        return hashlib.sha256((sealed / name).read_bytes()).hexdigest()

    assert record == {
        "format": "spqr-modular",
        "sha256": sha256("pytorch_lora_weights.safetensors"),
        "config_sha256": sha256("adapter.json"),
        "base_digest": weights.weights_digest(tiny_pipeline.unet),
        "scale": 1.0,
        "attach": "base",
    }


def test_an_adapter_without_a_base_cannot_be_sealed(sealed: Path) -> None:
    edit(sealed / "adapter.json", base_digest=None)
    with pytest.raises(UserError, match=r"adapter\.json: no base_digest"):
        modular.seal(sealed)


def test_a_folder_without_an_adapter_cannot_be_sealed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adapter\.json: cannot be read"):
        modular.seal(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_entry_is_put_on(tiny_pipeline: StableDiffusionPipeline, sealed: Path) -> None:
    before = weights.copy_state(tiny_pipeline)
    apply_alignment(tiny_pipeline, sealed)
    weights.assert_differs(tiny_pipeline, before)


@pytest.mark.parametrize("missing", ["pytorch_lora_weights.safetensors", "adapter.json"])
def test_a_missing_adapter_is_refused(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path, missing: str
) -> None:
    (sealed / missing).unlink()
    with pytest.raises(UserError, match=f"{missing} is missing.*restore it or align again"):
        apply_alignment(tiny_pipeline, sealed)


def test_weights_in_the_place_of_the_adapter_are_refused(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path
) -> None:
    (sealed / "pytorch_lora_weights.safetensors").unlink()
    weights.save_denoiser(tiny_pipeline, sealed)  # the base, not safe at all
    with pytest.raises(UserError, match=r"pytorch_lora_weights\.safetensors is missing"):
        apply_alignment(tiny_pipeline, sealed)


@pytest.mark.parametrize("scale", [0.0, 1.001])
def test_another_adapter_is_refused(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path, scale: float
) -> None:
    path = sealed / "pytorch_lora_weights.safetensors"
    save_file({key: tensor * scale for key, tensor in load_file(path).items()}, path)
    with pytest.raises(
        UserError, match=r"pytorch_lora_weights\.safetensors is not the file.*sha256 differs"
    ):
        apply_alignment(tiny_pipeline, sealed)


def test_another_strength_of_the_same_adapter_is_refused(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path
) -> None:
    edit(sealed / "adapter.json", alpha=1e-6)
    with pytest.raises(UserError, match=r"adapter\.json is not the file.*config_sha256 differs"):
        apply_alignment(tiny_pipeline, sealed)


def test_another_base_is_refused_and_left_alone(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path
) -> None:
    with torch.no_grad():
        tiny_pipeline.unet.conv_in.bias[0] += 1e-3
    before = weights.weights_digest(tiny_pipeline.unet)
    with pytest.raises(
        UserError, match=r"belongs to a denoiser with digest .*\n.*align this model"
    ):
        apply_alignment(tiny_pipeline, sealed)
    assert weights.weights_digest(tiny_pipeline.unet) == before
    assert not adapters.active_adapters(tiny_pipeline.unet)


def test_the_base_in_another_precision_is_another_base(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path
) -> None:
    with pytest.raises(UserError, match="precision"):
        apply_alignment(tiny_pipeline.to(torch.bfloat16), sealed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "format is 'other'"),
        ({"scale": 0.5}, "scale is 0.5"),
        ({"attach": "released"}, "attach is 'released'"),
        ({"sha256": None}, "sha256 differs"),
        ({"base_digest": None}, "digest None"),
    ],
)
def test_an_edited_seal_is_refused(
    tiny_pipeline: StableDiffusionPipeline,
    sealed: Path,
    changes: dict[str, Any],
    said: str,
) -> None:
    edit(sealed / "modular.json", **changes)
    with pytest.raises(UserError, match=said):
        apply_alignment(tiny_pipeline, sealed)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_seal_that_cannot_be_read_is_refused(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path, text: str
) -> None:
    (sealed / "modular.json").write_text(text)
    with pytest.raises(UserError, match=r"modular\.json: (cannot be read|holds no JSON object)"):
        apply_alignment(tiny_pipeline, sealed)


def test_adapters_on_the_base_do_not_matter(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path
) -> None:
    adapters.add_lora(tiny_pipeline.unet, 2, 2.0, ("attn1.to_q",), 0, "other")
    modular.verify(tiny_pipeline, sealed)


def test_an_entry_without_a_seal_is_none_of_its_business(
    tiny_pipeline: StableDiffusionPipeline, sealed: Path
) -> None:
    (sealed / "modular.json").unlink()
    modular.verify(tiny_pipeline, sealed)
