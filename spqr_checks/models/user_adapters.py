"""LoRA adapters as users bring them: PEFT folders and the files of diffusers and kohya.

Call these inside `lora_layers.all_or_nothing`; `adapters.load_user_adapter` does.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from peft import LoraConfig
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from spqr_checks.errors import UserError, refused_field
from spqr_checks.models.lora_layers import (
    activate,
    active_adapters,
    adapter_tensors,
    attach,
    fill,
    lora_layers,
)
from spqr_checks.models.pipelines import LOADING_ERRORS, first_line, quiet
from spqr_checks.models.sources import safetensors_header, safetensors_metadata
from spqr_checks.models.weights import denoiser_of, networks, read_tensors, refuse_non_finite

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PEFT_PREFIX = "base_model.model."
_LORA_KEY = re.compile(
    r"(?P<layer>.+?)[._](lora_A|lora_B|lora_down|lora_up|(lora|lora_linear_layer)\.(down|up))"
    r"(\.default)?\.weight"
)
# entries of a PEFT configuration that are understood here, or that change nothing when it is used
_UNDERSTOOD = {
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("lora_dropout", "inference_mode", "base_model_name_or_path", "task_type", "revision"),
    *("auto_mapping", "peft_version", "megatron_core", "qalora_group_size"),
}
_PLAIN: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian"),
}
Record = TypeVar("Record", bound=BaseModel)


class _PeftConfig(BaseModel):
    """What adapter_config.json says, as far as it decides what the adapter adds."""

    model_config = ConfigDict(strict=True, extra="allow")

    peft_type: str
    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = None


def read_record(path: Path, model: type[Record]) -> Record:
    """An adapter's configuration file; UserError if there is none, or it lacks something."""
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; without it the adapter's alpha would be "
            "guessed. Give the folder as it was saved."
        ) from error
    except ValidationError as error:
        raise UserError(
            f"{path}: {refused_field(error)}; it would be guessed. Save the adapter again."
        ) from error


def load_peft_folder(pipe: DiffusionPipeline, folder: Path, name: str) -> None:
    """Attach what `PeftModel.save_pretrained` wrote to the denoiser; errors as the caller says."""
    config_path, path = folder / PEFT_CONFIG, folder / PEFT_WEIGHTS
    record = read_record(config_path, _PeftConfig)
    more = record.model_extra or {}
    odd = sorted(k for k, v in more.items() if k not in _UNDERSTOOD and k not in _PLAIN and v)
    odd += [k for k, plain in _PLAIN.items() if k in more and more[k] not in plain]
    if record.peft_type != "LORA":
        odd = [f"peft_type {record.peft_type}"]
    if odd:
        raise UserError(
            f"{config_path}: only plain LoRA is understood, not {', '.join(odd)}. "
            "Merge the adapter and give the weights."
        )
    tensors = {key.removeprefix(_PEFT_PREFIX): value for key, value in read_tensors(path)}
    layers = sorted({_layer_name(key, path) for key in tensors})
    denoiser = denoiser_of(pipe)
    known = {known for known, _ in denoiser.named_modules()}
    if foreign := [layer for layer in layers if layer not in known]:
        raise UserError(_does_not_fit(path, f"{len(foreign)} layers, such as {foreign[0]}", pipe))
    config = LoraConfig(
        r=record.r,
        lora_alpha=record.lora_alpha,
        rank_pattern=record.rank_pattern or {},
        alpha_pattern=record.alpha_pattern or {},
        use_rslora=bool(record.use_rslora),
        target_modules=layers,
        init_lora_weights=False,
    )
    attach(denoiser, config, name)
    fill(denoiser, name, tensors, str(path))


def load_diffusers_file(pipe: DiffusionPipeline, path: Path, name: str) -> None:
    """Attach a LoRA file by the pipeline's own loader, then count that nothing was lost.

    The loader knows the many layouts, but passes over keys that it cannot place with a warning.
    """
    keys = safetensors_header(path)
    layers = {_layer_name(key, path) for key in keys if not key.endswith(".alpha")}
    _refuse_guessed_alpha(path, layers, set(keys))
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(
            f"{path}: {type(pipe).__name__} cannot load LoRA files. Give the adapter as a PEFT "
            "folder, or merge it and give the weights."
        )
    before = {key: active_adapters(part) for key, part in networks(pipe).items()}
    given = {"weight_name": path.name, "use_safetensors": True, "local_files_only": True}
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            read = type(pipe).lora_state_dict(str(path.parent), **given)
            pipe.load_lora_weights(str(path.parent), adapter_name=name, **given)
    except LOADING_ERRORS as error:
        raise UserError(_does_not_fit(path, first_line(error), pipe)) from error
    tensors, alphas = read if isinstance(read, tuple) else (read, None)
    attached: dict[str, nn.Parameter] = {}
    found_alphas: Counter[float] = Counter()
    for component, part in networks(pipe).items():
        own = adapter_tensors(part, name)
        attached |= {f"{component}.{key}": tensor for key, tensor in own.items()}
        found_alphas.update(
            float(layer.lora_alpha[name]) for _, layer in lora_layers(part) if name in layer.lora_A
        )
        if own:
            activate(part, [*before[component], name])
    if len(attached) != len(tensors) or not attached:
        lost = f"{len(tensors) - len(attached)} of its {len(tensors)} tensors have no place"
        raise UserError(_does_not_fit(path, lost, pipe))
    if alphas and found_alphas != Counter(float(alpha) for alpha in alphas.values()):
        raise UserError(
            f"{path}: its alphas differ between layers, and diffusers loses some of them.\n"
            "Merge the adapter and give the weights."
        )
    for key, tensor in attached.items():
        refuse_non_finite(tensor, key, str(path))
        tensor.data = tensor.data.float()


def only_file(path: Path) -> Path:
    """The safetensors file itself, or the only one in a folder; UserError if there is no one."""
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(
            f"{path} is no adapter: {len(files)} safetensors files and no {PEFT_CONFIG}. "
            "Give a PEFT folder or the LoRA file itself."
        )
    return files[0]


def _refuse_guessed_alpha(path: Path, layers: set[str], keys: set[str]) -> None:
    text = safetensors_metadata(path).get("lora_adapter_metadata")
    if text is None:
        known = bool(layers) and all(f"{layer}.alpha" in keys for layer in layers)
    else:
        try:
            entries = set(json.loads(text))
        except (ValueError, TypeError):
            entries = set()
        components = {layer.partition(".")[0] for layer in layers}
        known = all({f"{name}.r", f"{name}.lora_alpha"} <= entries for name in components)
    if not known:
        raise UserError(
            f"{path}: alpha is not on record, so the adapter's strength would be guessed.\n"
            "Save it with lora_adapter_metadata (diffusers ≥ 0.35) or an .alpha for each layer."
        )


def _layer_name(key: str, path: Path) -> str:
    match = _LORA_KEY.fullmatch(key)
    if match is None:
        raise UserError(
            f"{path}: {key} is no plain LoRA weight (DoRA, LoKr, norms and biases are not "
            "understood). Merge the adapter and give the weights."
        )
    return match["layer"]


def _does_not_fit(path: Path, reason: str, pipe: DiffusionPipeline) -> str:
    return (
        f"{path} does not fit this {type(pipe).__name__}: {reason}\n"
        "Give an adapter that was made for this architecture."
    )
