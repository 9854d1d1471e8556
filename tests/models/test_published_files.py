"""Every kind of weight file that the page of models lists, made up and loaded as it says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compvis import whole_checkpoint
from real_classes import build
from safetensors.torch import load_file, save_file
from torch import Tensor

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.models import adapters
from spqr_checks.models.components import replace_network, replacement
from spqr_checks.models.conversion import convert
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.weights import networks

pytestmark = pytest.mark.usefixtures("one_thread")
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def base(real_class: Callable[[str], Path]) -> Path:
    return real_class("sd1")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of the same class with other weights, which the authors' is; read only."""
    return build("sd1", tmp_path_factory.mktemp("other") / "sd1", seed=1)


def converted(*arguments: str | Path) -> None:
    assert main(["convert", *map(str, arguments)]) == 0


def with_part(base: Path, candidate: str) -> Any:
    """The base with a network replaced, as a run makes the candidate."""
    pipe, new = load_pipeline(str(base)), replacement(candidate)
    assert new is not None
    replace_network(pipe, new, "float32")
    return pipe


def part_of(weights: Weights) -> Weights:
    return {key: tensor for key, tensor in weights.items() if "attn2.to_" in key}


Made = tuple[Any, str, Weights]
"""The candidate, the network that is another, and its weights."""


def whole_unet(base: Path, other: Path, work: Path) -> Made:
    weights = load_file(other / UNET)
    torch.save(weights, work / "x.pt")
    converted(work / "x.pt", "--out", work / "x")
    return with_part(base, f"denoiser={work / 'x' / 'x.safetensors'}"), "unet", weights


def part_of_unet(base: Path, other: Path, work: Path) -> Made:
    part = part_of(load_file(other / UNET))
    save_file(part, work / "x.safetensors")
    converted(work / "x.safetensors", "--out", work / "x", "--config", base)
    pipe = with_part(base, f"denoiser={work / 'x' / 'x.safetensors'}")
    return pipe, "unet", load_file(base / UNET) | part


def part_under_its_name(base: Path, other: Path, work: Path) -> Made:
    part = part_of(load_file(other / UNET))
    torch.save({"unet": part, "modifier_token": {}}, work / "x.bin")
    converted(work / "x.bin", "--out", work / "x", "--config", base)
    pipe = with_part(base, f"denoiser={work / 'x' / 'x.safetensors'}")
    return pipe, "unet", load_file(base / UNET) | part


def whole_model(base: Path, other: Path, work: Path) -> Made:
    torch.save(whole_checkpoint(load_pipeline(str(other))), work / "x.pt")
    converted(work / "x.pt", "--out", work / "x", "--config", base)
    return load_pipeline(str(work / "x")), "unet", load_file(other / UNET)


def pipeline_folder(base: Path, other: Path, work: Path) -> Made:
    del base
    shutil.copytree(other, work / "pickled")
    path = work / "pickled" / UNET
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    converted(work / "pickled", "--out", work / "x")
    return load_pipeline(str(work / "x")), "unet", load_file(other / UNET)


def unet_folder(base: Path, other: Path, work: Path) -> Made:
    shutil.copytree(other / "unet", work / "x")
    return with_part(base, f"denoiser={work / 'x'}"), "unet", load_file(other / UNET)


def text_folder(base: Path, other: Path, work: Path) -> Made:
    shutil.copytree(other / "text_encoder", work / "x")
    return with_part(base, f"text-encoder={work / 'x'}"), "text_encoder", load_file(other / TEXT)


def text_state(base: Path, other: Path, work: Path) -> Made:
    weights = load_file(other / TEXT)
    torch.save(weights, work / "x.pt")
    converted(work / "x.pt", "--out", work / "x")
    pipe = with_part(base, f"text-encoder={work / 'x' / 'x.safetensors'}")
    return pipe, "text_encoder", weights


def merged(base: Path, file: Path, deltas: Weights, alpha: str = "") -> Made:
    pipe = load_pipeline(str(base))
    adapters.load_user_adapter(pipe, file, alpha=alpha)
    adapters.merge(pipe)
    own = load_file(base / UNET)
    return pipe, "unet", own | {name: own[name] + delta for name, delta in deltas.items()}


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.1


def kohya(base: Path, other: Path, work: Path) -> Made:
    """Rank and alpha 1 on every linear layer and convolution of the transformers."""
    del other
    tensors: Weights = {}
    deltas: Weights = {}
    for name, weight in load_file(base / UNET).items():
        if ".attentions." not in name or not name.endswith(".weight") or weight.ndim < 2:
            continue
        out, into, *kernel = weight.shape
        down, up = drawn(1, into, *kernel), drawn(out, 1, *[1] * len(kernel))
        stem = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors[f"{stem}.alpha"] = torch.tensor(1.0)
        deltas[name] = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    assert any(tensor.ndim == 4 for tensor in deltas.values())
    assert any(".ff." in name for name in deltas)
    save_file(tensors, work / "x.safetensors")
    return merged(base, work / "x.safetensors", deltas)


def plain_lora(base: Path, other: Path, work: Path) -> Made:
    del other
    tensors: Weights = {}
    deltas: Weights = {}
    for name, weight in load_file(base / UNET).items():
        if re.search(r"attn[12]\.to_(q|k|v|out\.0)\.weight$", name):
            layer = f"unet.{name.removesuffix('.weight')}"
            a, b = drawn(2, weight.shape[1]), drawn(weight.shape[0], 2)
            tensors |= {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}
            deltas[name] = b @ a
    save_file(tensors, work / "x.safetensors")
    return merged(base, work / "x.safetensors", deltas, "rank")


KINDS: dict[str, Callable[[Path, Path, Path], Made]] = {
    "the UNet's state dict, `.pt`": whole_unet,
    "the trained part of a denoiser, `.safetensors` or `.pt`": part_of_unet,
    "the trained part under `unet`, `.bin`": part_under_its_name,
    "a whole model in CompVis' layout, `.pt` or `.ckpt`": whole_model,
    "a pipeline's folder": pipeline_folder,
    "a UNet's folder": unet_folder,
    "a text encoder's folder": text_folder,
    "a text encoder's state dict, `.pt`": text_state,
    "a LoRA in kohya's layout with alphas, convolutions among its layers": kohya,
    "a LoRA of diffusers, mostly without an alpha": plain_lora,
}


def test_the_page_lists_every_kind() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page.split("## Weights that authors publish")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    assert [row[1].strip() for row in rows[2:]] == [*KINDS]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_the_kind_becomes_the_candidate_that_it_holds(
    base: Path, other: Path, tmp_path: Path, kind: str
) -> None:
    pipe, name, expected = KINDS[kind](base, other, tmp_path)
    found = networks(pipe)[name].state_dict()
    assert found.keys() == expected.keys()
    own = networks(load_pipeline(str(base)))[name].state_dict()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], atol=1e-6, rtol=1e-5)
    assert any(not torch.equal(found[key], own[key]) for key in own)


@pytest.mark.parametrize("beside", [{"modifier_token": {"a": torch.ones(1)}}, {"step": 3}])
def test_more_than_a_denoiser_beside_unet_is_not_passed_over(
    base: Path, other: Path, tmp_path: Path, beside: dict[str, Any]
) -> None:
    torch.save({"unet": part_of(load_file(other / UNET)), **beside}, tmp_path / "x.bin")
    with pytest.raises(UserError, match="'unet' is a dict, not a tensor"):
        convert(tmp_path / "x.bin", tmp_path / "x", str(base))
