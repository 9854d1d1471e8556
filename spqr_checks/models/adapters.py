"""LoRA adapters (Hu et al., arXiv 2106.09685): W + scale · (alpha / r) · B A, by PEFT.

An adapter entry is a folder that plain libraries read too. diffusers' `load_lora_weights` takes
`pytorch_lora_weights.safetensors`: keys `unet.<layer>.lora_A.weight` and `….lora_B.weight`,
float32, with rank and alpha in the header. PEFT's `PeftModel.from_pretrained` takes the same
tensors in `adapter_model.safetensors` with `adapter_config.json`. `adapter.json` says rank, alpha,
targets and where the adapter comes from. All adapters of a pipeline act together, in the order in
which they were attached.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from peft import LoraConfig
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.models import lora_files, user_adapters
from spqr_checks.models.lora_layers import (
    activate,
    active_adapters,
    adapter_tensors,
    all_or_nothing,
    attach,
    attached_adapters,
    discard,
    fill,
    lora_layers,
)
from spqr_checks.models.sources import resolve, safetensors_header
from spqr_checks.models.weights import (
    acting,
    denoiser_of,
    networks,
    read_tensors,
    refuse_non_finite,
    weights_digest,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = [
    "TARGETS",
    "activate",
    "active_adapters",
    "adapter_tensors",
    "add_lora",
    "load_adapter",
    "load_user_adapter",
    "merge",
    "remove",
    "save_adapter",
]

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Queries, keys, values and outputs of self- and cross-attention."""

WEIGHTS_FILE, CONFIG_FILE = "pytorch_lora_weights.safetensors", lora_files.ENTRY
FORMAT = "peft-lora"


class _Entry(BaseModel):
    """What adapter.json must say."""

    model_config = ConfigDict(strict=True)

    format: Literal["peft-lora"]
    r: int = Field(ge=1)
    alpha: float = Field(gt=0, allow_inf_nan=False)
    target_modules: list[str] = Field(min_length=1)


def add_lora(
    denoiser: nn.Module, rank: int, alpha: float, targets: Sequence[str], seed: int, name: str
) -> list[nn.Parameter]:
    """Attach a new adapter and return its parameters, the only ones left trainable.

    A is drawn from a normal distribution with standard deviation 1/rank (PEFT's "gaussian") by a
    generator of its own and B is zero: the outputs stay as they were, and the start is the same
    whatever was drawn or attached before. `targets` are endings of layer names.

    Raises UserError for a target that no layer has and for rank or alpha out of range, ValueError
    for a name already in use.
    """
    if rank < 1 or not (math.isfinite(alpha) and alpha > 0):
        raise UserError(f"a LoRA needs rank ≥ 1 and alpha > 0, not rank {rank}, alpha {alpha}.")
    _check_targets(denoiser, targets, "LoRA targets")
    attach(denoiser, _config(rank, alpha, targets), name)
    generator = torch.Generator().manual_seed(seed)
    parameters = adapter_tensors(denoiser, name)
    with torch.no_grad():
        for key, parameter in parameters.items():
            if key.endswith("lora_A.weight"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / rank)
            else:
                parameter.zero_()
    denoiser.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    return list(parameters.values())


def save_adapter(
    pipe: DiffusionPipeline, folder: Path, name: str, metadata: Mapping[str, Json]
) -> None:
    """Write one adapter of the denoiser as an entry; `metadata` goes into adapter.json too.

    `base_digest`, the digest of the weights below the adapter, is added unless given. Raises
    ValueError if there is no such adapter, if its layers differ in rank or alpha or if it acts at
    another scale than 1 (merge it instead), UserError if it holds NaN or infinities.
    """
    denoiser = denoiser_of(pipe)
    tensors = adapter_tensors(denoiser, name)
    kinds = {
        (layer.r[name], float(layer.lora_alpha[name]), layer.scaling[name])
        for _, layer in lora_layers(denoiser)
        if name in layer.lora_A
    }
    if len(kinds) != 1:
        raise ValueError(f"{name!r} cannot be saved: no such adapter, or its layers differ")
    rank, alpha, scaling = kinds.pop()
    if scaling != alpha / rank:
        raise ValueError(f"{name!r} acts at another scale than alpha / r and would lose it")
    for key, tensor in tensors.items():
        refuse_non_finite(tensor, key, f"adapter {name!r}")
    configs: Any = denoiser.peft_config
    targets = sorted(configs[name].target_modules)
    record: dict[str, Json] = {"format": FORMAT, "r": rank, "alpha": alpha}
    record["target_modules"] = targets
    if reserved := sorted(record.keys() & metadata.keys()):
        raise ValueError(f"metadata must not set {', '.join(reserved)}")
    record |= {"base_digest": weights_digest(denoiser)} | dict(metadata)
    folder.mkdir(parents=True, exist_ok=True)
    values = {key: tensor.detach().float().cpu().contiguous() for key, tensor in tensors.items()}
    part = _component(pipe, denoiser)
    plain: dict[str, Json] = {"r": rank, "lora_alpha": alpha, "target_modules": targets}
    header = {lora_files.METADATA: json.dumps({f"{part}.{k}": v for k, v in plain.items()})}
    for prefix, file, said in (
        (f"{part}.", WEIGHTS_FILE, header),
        (lora_files.PEFT_PREFIX, lora_files.PEFT_WEIGHTS, {"format": "pt"}),
    ):
        named = {prefix + key: value for key, value in values.items()}
        save_file(named, folder / file, metadata=said)  # of several entries the order would vary
    config: dict[str, Json] = {"peft_type": "LORA"} | plain
    for file, value in ((lora_files.PEFT_CONFIG, config), (CONFIG_FILE, record)):
        text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
        (folder / file).write_text(text + "\n", encoding="utf-8")


def load_adapter(pipe: DiffusionPipeline, folder: Path, name: str, scale: float = 1.0) -> None:
    """Attach a saved adapter entry to the denoiser; it acts beside those already there.

    The pipeline is unchanged if anything does not fit: raises UserError for an adapter.json that
    is missing or incomplete, ranks that contradict it, missing or unexpected keys, other shapes,
    NaN or infinities; ValueError for a name already in use.
    """
    denoiser = denoiser_of(pipe)
    config_path, path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    record = lora_files.read_record(config_path, _Entry)
    _check_targets(denoiser, record.target_modules, str(config_path))
    for key, (_, shape) in safetensors_header(path).items():
        if key.endswith("lora_A.weight") and shape[:1] != (record.r,):
            raise UserError(
                f"{config_path} says rank {record.r}, but {key} in {path.name} has shape "
                f"{list(shape)}. The two files do not belong together."
            )
    prefix = f"{_component(pipe, denoiser)}."
    with all_or_nothing(pipe, name):
        attach(denoiser, _config(record.r, record.alpha, record.target_modules), name)
        fill(denoiser, name, {k.removeprefix(prefix): v for k, v in read_tensors(path)}, str(path))
        _set_scale(pipe, name, scale)


def load_user_adapter(
    pipe: DiffusionPipeline,
    source: str | Path,
    scale: float = 1.0,
    name: str | None = None,
    alpha: str = "",
) -> str:
    """Attach an adapter that a user brings, and return its name ("user", "user1", … by default).

    Understood are a PEFT folder (adapter_config.json, adapter_model.safetensors), a LoRA that
    diffusers or kohya saved (a safetensors file, or a folder with one), an entry of this package,
    and Hub ids of these. Plain LoRA only. `alpha`, a number or `rank`, is for the layers of files
    in which it is not on record. The pipeline is unchanged if anything does not fit.

    Raises UserError when alpha is neither on record (`lora_adapter_metadata` in the header, or
    `.alpha` beside each layer) nor given, for another architecture, for DoRA and other kinds, for
    pickles, NaN and unreadable files.
    """
    if isinstance(source, Path) and not source.exists():
        raise UserError(f"adapter {source} does not exist. Give a folder or a safetensors file.")
    path = resolve(str(source))
    if name is None:
        used = {known for part in networks(pipe).values() for known in attached_adapters(part)}
        free = ("user", *(f"user{n}" for n in range(1, len(used) + 1)))
        name = next(one for one in free if one not in used)
    if (path / CONFIG_FILE).is_file():
        load_adapter(pipe, path, name, scale)
        return name
    with all_or_nothing(pipe, name):
        if (path / lora_files.PEFT_CONFIG).is_file():
            user_adapters.load_peft_folder(pipe, path, name)
        else:
            user_adapters.load_file(pipe, lora_files.only_file(path), name, alpha)
        _set_scale(pipe, name, scale)
    return name


def remove(pipe: DiffusionPipeline, name: str) -> None:
    """Take an adapter off; outputs are exactly what they were before it. ValueError if unknown."""
    parts = [part for part in networks(pipe).values() if name in attached_adapters(part)]
    if not parts:
        raise ValueError(f"no adapter {name!r} is attached")
    for part in parts:
        discard(part, name)


def merge(pipe: DiffusionPipeline) -> None:
    """Fold the active adapters of every network into its weights, and take all adapters off.

    The sum is made in float32 and rounded once to the dtype of the weights. Adapters that are
    attached but not active are dropped. Raises UserError if a merged weight is not finite, with
    nothing merged.
    """
    merged: list[tuple[nn.Parameter, Tensor]] = []
    for part in networks(pipe).values():
        for path, layer in lora_layers(part):
            weight = layer.get_base_layer().weight
            total = weight.detach().float()
            for name in acting(layer):
                total = total + layer.get_delta_weight(name).detach().float()
            total = total.to(weight.dtype)
            refuse_non_finite(total, path, "the merged weights")
            merged.append((weight, total))
    with torch.no_grad():
        for weight, total in merged:
            weight.copy_(total)
    for part in networks(pipe).values():
        for name in attached_adapters(part):
            discard(part, name)


def _config(rank: int, alpha: float, targets: Sequence[str]) -> LoraConfig:
    return LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=False
    )


def _component(pipe: DiffusionPipeline, network: nn.Module) -> str:
    return next(name for name, part in networks(pipe).items() if part is network)


def _check_targets(denoiser: nn.Module, targets: Sequence[str], what: str) -> None:
    names = [name for name, _ in denoiser.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise UserError(
                f"{what}: {type(denoiser).__name__} has no layer {target!r}. "
                "It is meant for another architecture."
            )


def _set_scale(pipe: DiffusionPipeline, name: str, scale: float) -> None:
    if not math.isfinite(scale):
        raise UserError(f"the scale of an adapter must be a finite number, not {scale}.")
    for part in networks(pipe).values():
        for _, layer in lora_layers(part):
            layer.set_scale(name, scale)
