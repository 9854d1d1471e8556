"""The one-dimensional adapter of SPM in training: where it lies and how it starts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spqr_checks.alignment.training.unet import ADAPTER
from spqr_checks.models import adapters


def layers(unet: nn.Module) -> list[str]:
    """Paths of all linear layers and convolutions inside transformer blocks of a UNet."""
    from diffusers.models import Transformer2DModel

    found = []
    for path, module in unet.named_modules():
        if isinstance(module, Transformer2DModel):
            parts = module.named_modules()
            found += [f"{path}.{n}" for n, m in parts if isinstance(m, (nn.Linear, nn.Conv2d))]
    return found


def add(unet: nn.Module, rank: int, alpha: float, seed: int) -> list[nn.Parameter]:
    """Attaches an adapter to ``layers``: down as Kaiming draws it with a = √5, up zero."""
    parameters = adapters.add_lora(unet, rank, alpha, layers(unet), seed, ADAPTER)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, down in adapters.adapter_tensors(unet, ADAPTER).items():
            if key.endswith("lora_A.weight"):
                bound = down[0].numel() ** -0.5
                drawn = torch.rand(down.shape, generator=generator) * 2 - 1
                down.copy_(bound * drawn)
    return parameters


def anchors(target: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Embeddings to hold, far from a concept's: shape (n, tokens, width) for (tokens, width).

    Directions are uniform, accepted with probability 1 − cos(a, c); lengths are |c| · U(0.8, 1.2).
    """
    flat = target.detach().float().cpu().flatten()
    found: list[Tensor] = []
    while len(found) < n:
        drawn = torch.randn(flat.shape, generator=generator)
        drawn = drawn / drawn.norm()
        cosine = float(drawn @ flat / flat.norm())
        if float(torch.rand((), generator=generator)) < 1 - cosine:
            stretch = 0.8 + 0.4 * float(torch.rand((), generator=generator))
            found.append(stretch * flat.norm() * drawn)
    return torch.stack(found).view(n, *target.shape).to(target)
