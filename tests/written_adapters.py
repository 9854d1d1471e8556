"""LoRA adapters with a B that is not zero, written as PEFT and as diffusers write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from spqr_checks.models import adapters
from spqr_checks.models.weights import denoiser_of

RANK, ALPHA = 4, 6.0  # alpha / r is neither 1 nor 2: a lost alpha shows
_NAME = "written"


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of an entry, named as in the denoiser."""
    tensors = load_file(folder / adapters.WEIGHTS_FILE)
    assert len({key.partition(".")[0] for key in tensors}) == 1
    return {key.partition(".")[2]: tensor for key, tensor in tensors.items()}


def write_adapter(pipe: Any, folder: Path, kind: str, strength: float = 0.5) -> dict[str, Tensor]:
    """Write an adapter of the pipeline's attention; the pipeline is plain again afterwards.

    Returns what it adds to each weight at scale 1: alpha / r · B A.
    """
    denoiser = denoiser_of(pipe)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(adapters.TARGETS))
    if kind == "peft":
        wrapped = get_peft_model(denoiser, config, adapter_name="default")
        fill(denoiser, "default", strength)
        wrapped.save_pretrained(folder)
        name = "default"
    else:
        denoiser.add_adapter(config, adapter_name=_NAME)
        fill(denoiser, _NAME, strength)
        part = "unet" if hasattr(pipe, "unet") else "transformer"
        record = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items()}
        pipe.save_lora_weights(
            folder,
            **{
                f"{part}_lora_layers": get_peft_model_state_dict(denoiser, adapter_name=_NAME),
                f"{part}_lora_adapter_metadata": record,
            },
        )
        name = _NAME
    tensors = adapters.adapter_tensors(denoiser, name)
    added = {
        key.removesuffix(".lora_A.weight") + ".weight": ALPHA
        / RANK
        * tensors[key.replace("lora_A", "lora_B")].detach()
        @ tensors[key].detach()
        for key in tensors
        if key.endswith("lora_A.weight")
    }
    adapters.remove(pipe, name)
    return added


def fill(denoiser: Any, name: str, strength: float) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapters.adapter_tensors(denoiser, name).values():
            parameter.copy_(strength * torch.randn(parameter.shape, generator=generator))
