"""Filled adapters and what a pipeline gives with them, for the tests of adapters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from spqr_checks.models import adapters
from spqr_checks.models.weights import networks

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

RANK, ALPHA = 4, 10.0  # alpha / r is neither 1 nor 2: a lost alpha shows
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = f"{LAYER}.lora_A.weight"
SAVED = f"unet.{KEY}"


def drawn(pipe: StableDiffusionPipeline) -> Tensor:
    with torch.no_grad():
        return pipe.unet(torch.full((1, 4, 8, 8), 0.3), 5, torch.ones(1, 4, 16)).sample


def encoded(pipe: StableDiffusionPipeline) -> Tensor:
    with torch.no_grad():
        return pipe.text_encoder(torch.arange(8)[None]).last_hidden_state


def fill(module: Any, name: str, seed: int = 0) -> None:
    """Give an adapter weights that are far from zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.adapter_tensors(module, name).values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def attach(pipe: StableDiffusionPipeline, name: str, seed: int = 0, rank: int = RANK) -> Tensor:
    """A filled adapter; returns the outputs with it."""
    adapters.add_lora(pipe.unet, rank, ALPHA, adapters.TARGETS, seed, name)
    fill(pipe.unet, name, seed)
    return drawn(pipe)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a JSON or a safetensors file."""
    if path.suffix == ".json":
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
    else:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})


def is_plain(pipe: StableDiffusionPipeline, reference: dict[str, Tensor]) -> bool:
    """Whether nothing of any adapter is left in the pipeline."""
    state = pipe.unet.state_dict()
    return state.keys() == reference.keys() and not any(
        getattr(part, "peft_config", None) for part in networks(pipe).values()
    )


def peft_folder(pipe: StableDiffusionPipeline, folder: Path, **changes: Any) -> Tensor:
    """What PEFT itself saves for a wrapped UNet; returns the outputs with the adapter."""
    unet = UNet2DConditionModel.from_config(pipe.unet.config)
    unet.load_state_dict(pipe.unet.state_dict())
    given = {"r": RANK, "lora_alpha": ALPHA, "target_modules": list(adapters.TARGETS)} | changes
    wrapped = get_peft_model(unet, LoraConfig(**given)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        outputs = unet(torch.full((1, 4, 8, 8), 0.3), 5, torch.ones(1, 4, 16)).sample
    wrapped.save_pretrained(folder)
    return outputs


def b_a(layer: str) -> dict[str, Tensor]:
    halves = {"A": torch.ones(RANK, 16), "B": torch.ones(16, RANK)}
    return {f"{layer}.lora_{half}.weight": tensor for half, tensor in halves.items()}
