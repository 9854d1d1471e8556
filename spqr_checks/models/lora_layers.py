"""PEFT's LoRA layers inside a network: put in, filled, switched and taken out again.

Diffusers and PEFT activate an adapter by switching the others off, and pick a new active one when
the active one is deleted. Here all adapters of a network act together unless told otherwise, so
everything that attaches or deletes sets the active ones itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.models.pipelines import quiet
from spqr_checks.models.weights import compare_shapes, networks, refuse_non_finite, shapes

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def lora_layers(module: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Every layer that carries at least one adapter, with its path."""
    for path, layer in module.named_modules():
        if isinstance(layer, LoraLayer):
            yield path, layer


def attached_adapters(module: nn.Module) -> list[str]:
    """Names of the adapters in a network, active or not."""
    return list(getattr(module, "peft_config", None) or {})


def active_adapters(module: nn.Module) -> list[str]:
    """Names of the adapters that act in a network, in the order in which they are added."""
    first = next(lora_layers(module), None)
    return list(first[1].active_adapters) if first else []


def activate(module: nn.Module, names: Sequence[str]) -> None:
    """Let exactly these attached adapters act. All are frozen; the others wait detached."""
    for _, layer in lora_layers(module):
        layer.set_adapter(list(names), inference_mode=True)
        layer.train(module.training)


def adapter_tensors(module: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The parameters of one adapter, sorted by key: `<layer>.lora_A.weight`, `….lora_B.weight`."""
    found: dict[str, nn.Parameter] = {}
    for path, layer in lora_layers(module):
        if name in layer.lora_A:
            found[f"{path}.lora_A.weight"] = layer.lora_A[name].weight
            found[f"{path}.lora_B.weight"] = layer.lora_B[name].weight
    return dict(sorted(found.items()))


def attach(module: nn.Module, config: LoraConfig, name: str) -> None:
    """PEFT's layers with values still to be set; those active before stay active, all frozen.

    The adapter is float32 whatever the network is: it is small, and it is what is trained.
    Raises ValueError for a name that is taken or that PEFT cannot use, UserError for layers of a
    kind that LoRA cannot be put on; the network is then as it was.
    """
    if "." in name or name in attached_adapters(module):
        raise ValueError(f"{name!r} is already attached, or is no name for an adapter")
    before = active_adapters(module)
    try:
        # PEFT draws values, replaced later, from the global generator
        with quiet(), torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(config, module, name)
    except ValueError as error:
        discard(module, name)
        activate(module, before)
        raise UserError(f"LoRA cannot be put on {type(module).__name__}: {error}") from error
    _note_adapters(module)
    for tensor in adapter_tensors(module, name).values():
        tensor.data = tensor.data.float()
    activate(module, [*before, name])


def fill(module: nn.Module, name: str, tensors: Mapping[str, Tensor], what: str) -> None:
    """Set an attached adapter's values; UserError unless keys and shapes fit and all is finite."""
    own = adapter_tensors(module, name)
    compare_shapes(shapes(own), shapes(tensors), what)
    with torch.no_grad():
        for key, tensor in tensors.items():
            refuse_non_finite(tensor, key, what)
            own[key].copy_(tensor)


def discard(module: nn.Module, name: str) -> None:
    """Delete an adapter, if it is there, and unwrap the layers in which no other is left."""
    activate(module, [active for active in active_adapters(module) if active != name])
    for path, layer in list(lora_layers(module)):
        layer.delete_adapter(name)
        if not layer.lora_A:
            parent, _, child = path.rpartition(".")
            setattr(module.get_submodule(parent), child, layer.get_base_layer())
    configs = getattr(module, "peft_config", None)
    if configs is not None:
        configs.pop(name, None)
        if not configs:
            del module.peft_config
    _note_adapters(module)


def _note_adapters(module: nn.Module) -> None:
    """The flag by which diffusers and transformers remember that a network has adapters."""
    if hasattr(type(module), "_hf_peft_config_loaded"):
        module._hf_peft_config_loaded = bool(attached_adapters(module))  # type: ignore[assignment]


@contextmanager
def all_or_nothing(pipe: DiffusionPipeline, name: str) -> Iterator[None]:
    """Take a half-attached adapter off again when its loading fails.

    Raises ValueError for a name that is taken.
    """
    parts = networks(pipe)
    if any(name in attached_adapters(part) for part in parts.values()):
        raise ValueError(f"an adapter {name!r} is already attached")
    before = {key: active_adapters(part) for key, part in parts.items()}
    try:
        yield
    except BaseException:
        for key, part in parts.items():
            discard(part, name)
            activate(part, before[key])
        raise
