"""What an adapter's files say about themselves, before a weight is read. Light.

Every tensor of a LoRA file must be one half of a layer's B·A, or a layer's alpha. Alpha is on
record in `adapter_config.json` (PEFT), in `lora_adapter_metadata` in the file's header (diffusers),
or as `.alpha` beside each layer (kohya). Where it is not, the strength is a guess of whoever loads
the file, and the user has to say it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from spqr_checks.errors import UserError, refused_field
from spqr_checks.models.sources import resolve, safetensors_header, safetensors_metadata

ENTRY = "adapter.json"
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
METADATA = "lora_adapter_metadata"

_KEY = re.compile(
    r"(?P<layer>.+?)(?:[._](?:(?P<a>lora_A|lora_down|lora\.down|lora_linear_layer\.down)"
    r"|lora_B|lora_up|lora\.up|lora_linear_layer\.up)(?:\.default)?"
    r"|(?<=_lora[12])\.(?:(?P<xa>down)|up)|(?<=[vj]_lora)\.(?:(?P<xsa>down)|up))\.weight"
)
_XLABS = re.compile(r"(diffusion_model\.)?(double|single)_blocks\.\d+\.processor\.")
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
_SHOWN = 3
Record = TypeVar("Record", bound=BaseModel)


def _pattern(text: str) -> str:
    try:
        re.compile(rf"(.*\.)?({text})$")
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no pattern of layer names ({error})") from None
    return text


_Pattern = Annotated[str, AfterValidator(_pattern)]
_Alpha = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class PeftConfig(BaseModel):
    """What a PEFT configuration says, as far as it decides what the adapter adds."""

    model_config = ConfigDict(strict=True, extra="allow")

    peft_type: str
    r: int = Field(ge=1)
    lora_alpha: _Alpha
    rank_pattern: dict[_Pattern, Annotated[int, Field(ge=1)]] | None = None
    alpha_pattern: dict[_Pattern, _Alpha] | None = None
    use_rslora: bool | None = None

    def strength(self, layer: str) -> tuple[int, float]:
        """Rank of a layer, and the alpha with which alpha / rank is the layer's scale."""
        rank = _matching(self.rank_pattern, layer, self.r)
        alpha = _matching(self.alpha_pattern, layer, self.lora_alpha)
        return rank, alpha * math.sqrt(rank) if self.use_rslora else alpha


_READ = PeftConfig.model_fields.keys()


@dataclass(frozen=True)
class LoraFile:
    """A safetensors file of B·A's, by its header.

    Attributes:
        layers: names of the tensors A and B of each layer, layers as the file names them.
        alphas: name of the tensor that holds a layer's alpha, where there is one.
        configs: from `lora_adapter_metadata`, by component of the pipeline.
        without_alpha: layers whose alpha is not on record.
    """

    path: Path
    layers: Mapping[str, tuple[str, str]]
    alphas: Mapping[str, str]
    configs: Mapping[str, PeftConfig]
    without_alpha: tuple[str, ...]


def check(sources: tuple[str, ...], alpha: str) -> None:
    """UserError unless all these adapters are plain LoRA whose alpha is on record, or given.

    Nothing but headers and configurations is read.
    """
    needed = False
    for source in sources:
        path = resolve(source)
        if (path / ENTRY).is_file():
            continue
        if (path / PEFT_CONFIG).is_file():
            read_peft_config(path / PEFT_CONFIG)
            safetensors_header(path / PEFT_WEIGHTS)
        else:
            needed = bool(read_file(only_file(path), alpha).without_alpha) or needed
    if alpha and not needed:
        raise UserError(
            f"--spqr-adapter-alpha {alpha} has no effect: the alpha of every adapter is on record. "
            "Leave it out."
        )


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


def read_peft_config(path: Path) -> PeftConfig:
    """A PEFT folder's configuration; UserError for what asks for more than B·A."""
    record = read_record(path, PeftConfig)
    _refuse_more(record.peft_type, record.model_extra or {}, path)
    return record


def read_file(path: Path, alpha: str = "") -> LoraFile:
    """A LoRA file by its header.

    Args:
        alpha: for layers without one: a number, or `rank`.

    Raises:
        UserError: for tensors that are not half of a B·A, halves without the other, metadata that
            asks for more than B·A, and alphas that are neither on record nor given.
    """
    keys = safetensors_header(path)
    halves: dict[str, dict[str, str]] = {}
    for key in keys:
        if not key.endswith(".alpha"):
            layer, side = lora_key(key, path)
            halves.setdefault(layer, {})[side] = key
    if lone := sorted(layer for layer, both in halves.items() if len(both) < 2):
        raise UserError(
            f"{path}: {few(lone)} has only one half of its B·A. Save the adapter again."
        )
    if not halves:
        raise UserError(f"{path} holds no LoRA weights. Give the adapter's own file.")
    alphas = {key.removesuffix(".alpha"): key for key in keys if key.endswith(".alpha")}
    if stray := sorted(alphas.keys() - halves.keys()):
        raise UserError(
            f"{path}: {few([alphas[name] for name in stray])} belongs to no layer of the file.\n"
            "Save the adapter again."
        )
    configs = _metadata(path, {layer.partition(".")[0] for layer in halves})
    if configs and alphas:
        raise UserError(
            f"{path}: alpha is on record twice, in {METADATA} and as .alpha beside the layers, and "
            "libraries differ in which they take. Save the adapter again."
        )
    lacking = [] if configs else sorted(halves.keys() - alphas.keys())
    # no alpha in this layout, by whose own code B·A is added as it is
    without = tuple(layer for layer in lacking if not _XLABS.match(layer))
    if without and not alpha:
        raise UserError(
            f"{path}: alpha is not on record for {len(without)} of {len(halves)} layers (such as "
            f"{without[0]}), so the adapter's strength would be guessed.\nSay what its trainer "
            "used: --spqr-adapter-alpha N, or rank where B·A is added as it is."
        )
    return LoraFile(
        path, {layer: (b["A"], b["B"]) for layer, b in halves.items()}, alphas, configs, without
    )


def lora_key(key: str, path: Path) -> tuple[str, str]:
    """Layer and half, `A` or `B`, of a weight; UserError for what is more than plain LoRA."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise UserError(
            f"{path}: {key} is no plain LoRA weight (DoRA, LoKr, norms and biases are not "
            "understood). Merge the adapter and give the weights."
        )
    return match["layer"], "A" if match["a"] or match["xa"] or match["xsa"] else "B"


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


def _metadata(path: Path, components: set[str]) -> dict[str, PeftConfig]:
    """The header's configurations, or none unless there is one of every component."""
    try:
        entries = json.loads(safetensors_metadata(path).get(METADATA, "{}"))
    except (ValueError, RecursionError):
        return {}
    found: dict[str, dict[str, Any]] = {name: {"peft_type": "LORA"} for name in components}
    for key, value in entries.items() if isinstance(entries, dict) else ():
        component, _, field = key.partition(".")
        if component in found:
            found[component][field] = value
    for fields in found.values():
        _refuse_more(fields["peft_type"], {k: fields[k] for k in fields.keys() - _READ}, path)
    if not all({"r", "lora_alpha"} <= fields.keys() for fields in found.values()):
        return {}
    configs = {}
    for component, fields in found.items():
        try:
            configs[component] = PeftConfig.model_validate(fields)
        except ValidationError as error:
            raise UserError(
                f"{path}: {METADATA} of {component}: {refused_field(error)}. "
                "Save the adapter again."
            ) from error
    return configs


def _refuse_more(peft_type: object, more: Mapping[str, Any], path: Path) -> None:
    odd = sorted(k for k, v in more.items() if k not in _UNDERSTOOD and k not in _PLAIN and v)
    odd += [k for k, plain in _PLAIN.items() if k in more and more[k] not in plain]
    if peft_type != "LORA":
        odd = [f"peft_type {peft_type}"]
    if odd:
        raise UserError(
            f"{path}: only plain LoRA is understood, not {', '.join(odd)}. "
            "Merge the adapter and give the weights."
        )


def _matching(patterns: Mapping[str, Any] | None, layer: str, default: Any) -> Any:
    """The first pattern that a layer's name ends with decides, as in PEFT."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            return value
    return default


def few(names: list[str]) -> str:
    """Some of the names, and how many there are."""
    return ", ".join(names[:_SHOWN]) + (f", … ({len(names)} in all)" if names[_SHOWN:] else "")
