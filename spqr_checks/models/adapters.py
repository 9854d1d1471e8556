"""LoRA adapters (Hu et al., arXiv 2106.09685): W + scale · (alpha / r) · B A, by PEFT.

An adapter entry is a folder with `adapter.safetensors` (keys `<layer>.lora_A.weight` and
`<layer>.lora_B.weight`, float32) and `adapter.json`, without which alpha could only be guessed.
All adapters of a pipeline act together, in the order in which they were attached.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.models import user_adapters
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

WEIGHTS_FILE = "adapter.safetensors"
CONFIG_FILE = "adapter.json"
FORMAT = "peft-lora"


def add_lora(
    denoiser: nn.Module, rank: int, alpha: float, targets: Sequence[str], seed: int, name: str
) -> list[nn.Parameter]:
    """Attach a new adapter and return its parameters, the only ones left trainable.

    A is drawn from a normal distribution with standard deviation 1/rank (PEFT's "gaussian") by a
    generator of its own and B is zero, so that the outputs stay as they were and the start is
    bit-identical whatever was drawn or attached before. `targets` are endings of layer names.
    The global random state is left alone.

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
    record: dict[str, Json] = {
        "format": FORMAT,
        "r": rank,
        "alpha": alpha,
        "target_modules": sorted(configs[name].target_modules),
    }
    if reserved := sorted(record.keys() & metadata.keys()):
        raise ValueError(f"metadata must not set {', '.join(reserved)}")
    record |= {"base_digest": weights_digest(denoiser)} | dict(metadata)
    text = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: tensor.detach().float().cpu().contiguous() for key, tensor in tensors.items()},
        folder / WEIGHTS_FILE,
        metadata={"format": "pt"},
    )
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def load_adapter(pipe: DiffusionPipeline, folder: Path, name: str, scale: float = 1.0) -> None:
    """Attach a saved adapter entry to the denoiser; it acts beside those already there.

    The pipeline is unchanged if anything does not fit: raises UserError for an adapter.json that
    is missing or incomplete, ranks that contradict it, missing or unexpected keys, other shapes,
    NaN or infinities; ValueError for a name already in use.
    """
    denoiser = denoiser_of(pipe)
    config_path, path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    record = user_adapters.read_json(config_path)
    rank, alpha, targets = (record.get(key) for key in ("r", "alpha", "target_modules"))
    again = "Save the adapter again."
    if record.get("format") != FORMAT:
        raise UserError(
            f"{config_path}: format is {record.get('format')!r}, not {FORMAT!r}. {again}"
        )
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise UserError(f"{config_path}: r must be a whole number ≥ 1, not {rank!r}. {again}")
    if not user_adapters.is_positive(alpha):
        raise UserError(f"{config_path}: alpha must be a number > 0, not {alpha!r}. {again}")
    assert isinstance(alpha, int | float)
    if not (isinstance(targets, list) and targets and all(isinstance(t, str) for t in targets)):
        raise UserError(f"{config_path}: target_modules must be a list of names. {again}")
    _check_targets(denoiser, targets, str(config_path))
    for key, (_, shape) in safetensors_header(path).items():
        if key.endswith("lora_A.weight") and shape[:1] != (rank,):
            raise UserError(
                f"{config_path} says rank {rank}, but {key} in {path.name} has shape "
                f"{list(shape)}. The two files do not belong together."
            )
    with all_or_nothing(pipe, name):
        attach(denoiser, _config(rank, alpha, targets), name)
        fill(denoiser, name, dict(read_tensors(path)), str(path))
        _set_scale(pipe, name, scale)


def load_user_adapter(
    pipe: DiffusionPipeline, source: str | Path, scale: float = 1.0, name: str | None = None
) -> str:
    """Attach an adapter that a user brings, and return its name ("user", "user1", … by default).

    Understood are a PEFT folder (adapter_config.json, adapter_model.safetensors), a LoRA that
    diffusers or kohya saved (a safetensors file, or a folder with one), an entry of this package,
    and Hub ids of these. Plain LoRA only. The pipeline is unchanged if anything does not fit.

    Raises UserError when alpha is not on record (neither `lora_adapter_metadata` in the header
    nor `.alpha` beside each layer), for another architecture, for DoRA and other kinds, for
    pickles, NaN and unreadable files.
    """
    if isinstance(source, Path) and not source.exists():
        raise UserError(f"adapter {source} does not exist. Give a folder or a safetensors file.")
    path = resolve(str(source))
    if name is None:
        used = {known for part in networks(pipe).values() for known in attached_adapters(part)}
        free = ("user", *(f"user{n}" for n in range(1, len(used) + 1)))
        name = next(candidate for candidate in free if candidate not in used)
    if (path / CONFIG_FILE).is_file():
        load_adapter(pipe, path, name, scale)
        return name
    with all_or_nothing(pipe, name):
        if (path / user_adapters.PEFT_CONFIG).is_file():
            user_adapters.load_peft_folder(pipe, path, name)
        else:
            user_adapters.load_diffusers_file(pipe, user_adapters.only_file(path), name)
        _set_scale(pipe, name, scale)
    return name


def remove(pipe: DiffusionPipeline, name: str) -> None:
    """Take an adapter off; outputs are exactly what they were before it. ValueError if unknown."""
    if not any(name in attached_adapters(part) for part in networks(pipe).values()):
        raise ValueError(f"no adapter {name!r} is attached")
    for part in networks(pipe).values():
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
            for name in layer.active_adapters:
                if name in layer.lora_A and not layer.disable_adapters:
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
