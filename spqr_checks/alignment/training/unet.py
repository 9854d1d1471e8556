"""A UNet in training: how it is called and on what, and which of its parameters are trained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.training.options import ErasingOptions, Trains
from spqr_checks.choices import Sampler
from spqr_checks.generation.conditions import Conditions
from spqr_checks.models import adapters
from spqr_checks.models.lora_layers import activate, active_adapters

ADAPTER = "alignment"
"""Name of the adapter that is trained."""

_LORA_TARGETS: dict[Trains, tuple[str, ...]] = {
    "x": tuple(f"attn2.{name}" for name in adapters.TARGETS),
    "x-strict": ("attn2.to_k", "attn2.to_v"),
    "u": (*(f"attn1.{name}" for name in adapters.TARGETS), "ff.net.0.proj", "ff.net.2"),
    "all": (*adapters.TARGETS, "ff.net.0.proj", "ff.net.2"),
}
_LORA_TARGETS["u-current"] = _LORA_TARGETS["u"]
_NOT_IN_U = ("conv_norm_out.", "conv_out.", "time_embedding.")
_NORM = re.compile(r"norm[^.]*\.(weight|bias)$")
"""Norms: a UNet's parameters that belong neither to a linear layer nor to a convolution."""


class Predictor:
    """Calls a UNet of the pipeline's architecture on noisy latents and encoded prompts.

    The network's output is a noise prediction or a velocity, as the pipeline's scheduler says.
    Both are affine in each other at one x_t, so a combination of predictions whose weights add
    up to one (ESD's target) is the same in either.
    """

    def __init__(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        config, scale = pipe.unet.config, int(pipe.vae_scale_factor)
        sample = config.sample_size
        rows, columns = (sample, sample) if isinstance(sample, int) else sample
        self.height = sampler.height or rows * scale
        self.width = sampler.width or columns * scale
        self.shape = (int(config.in_channels), self.height // scale, self.width // scale)

    def __call__(self, network: nn.Module, x: Tensor, t: Tensor, prompts: Conditions) -> Tensor:
        """Prediction, shape of ``x``; ``t`` holds one timestep per latent."""
        dtype = next(network.parameters()).dtype
        extra: dict[str, Any] = {}
        if prompts.pooled is not None:
            # SDXL: original size, crop offset, target size
            sizes = [self.height, self.width, 0, 0, self.height, self.width]
            extra["added_cond_kwargs"] = {
                "text_embeds": prompts.pooled.to(dtype),
                "time_ids": torch.tensor([sizes] * len(x), dtype=dtype, device=x.device),
            }
        prediction: Tensor = network(x.to(dtype), t, prompts.hidden.to(dtype), **extra).sample
        return prediction.float()


def is_trained(name: str, trains: Trains) -> bool:
    """Whether a UNet parameter of this name belongs to what the variant trains."""
    match trains:
        case "x":
            return "attn2." in name
        case "x-strict":
            return "attn2.to_k." in name or "attn2.to_v." in name
        case "u":
            return "attn2." not in name and not name.startswith(_NOT_IN_U)
        case "u-current":
            return "attn2." not in name and not _NORM.search(name)
        case "all":
            return True


def trainable(student: nn.Module, options: ErasingOptions, seed: int) -> list[nn.Parameter]:
    """Freezes the UNet but for what the variant trains, or adds the adapter that is trained."""
    student.requires_grad_(False)
    if options.rank:
        targets, alpha = _LORA_TARGETS[options.trains], options.alpha or options.rank
        return list(adapters.add_lora(student, options.rank, alpha, targets, seed, name=ADAPTER))
    chosen = [p for name, p in student.named_parameters() if is_trained(name, options.trains)]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


@contextmanager
def adapter_off(network: nn.Module) -> Iterator[None]:
    """The network without the adapter that is trained; afterwards it acts and trains as before."""
    active = active_adapters(network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    activate(network, [name for name in active if name != ADAPTER])
    try:
        yield
    finally:
        activate(network, active)
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def single_precision(network: nn.Module) -> Iterator[None]:
    """The network in float32 while something is trained on it, then in its own dtype again."""
    dtype = next(network.parameters()).dtype
    network.float().eval()
    try:
        yield
    finally:
        network.to(dtype)
