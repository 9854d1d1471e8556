"""LoRA factors as values: read from a network, put on one, and made from whole matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spqr_checks.models import adapters
from spqr_checks.models.lora_layers import fill, lora_layers

_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Lora:
    """A low-rank update of several linear layers: ΔW = (alpha / rank) · B A.

    Attributes:
        factors: by path of the layer, A of shape (rank, in) and B of shape (out, rank); the rank
            is the same in all.
        alpha: as in LoRA.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]
    alpha: float

    @property
    def rank(self) -> int:
        return len(next(iter(self.factors.values()))[0])

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank

    def delta(self, layer: str) -> Tensor:
        """ΔW of one layer, shape (out, in)."""
        a, b = self.factors[layer]
        return self.scale * (b @ a)


def read(network: nn.Module, name: str) -> Lora:
    """A copy, on the CPU, of an adapter that is on a network. ValueError if it is not there."""
    tensors = {
        key: tensor.detach().to("cpu", torch.float32, copy=True)
        for key, tensor in adapters.adapter_tensors(network, name).items()
    }
    layers = [key.removesuffix(_A) for key in tensors if key.endswith(_A)]
    if not layers:
        raise ValueError(f"no adapter {name!r} is attached")
    alpha = next(
        float(layer.lora_alpha[name]) for _, layer in lora_layers(network) if name in layer.lora_A
    )
    return Lora({layer: (tensors[layer + _A], tensors[layer + _B]) for layer in layers}, alpha)


def put_on(network: nn.Module, lora: Lora, name: str, targets: Sequence[str]) -> None:
    """Attaches an adapter with these factors to the layers whose names end in ``targets``.

    Raises UserError: the targets are not the adapter's layers, or a factor is not finite.
    """
    adapters.add_lora(network, lora.rank, lora.alpha, targets, 0, name)
    tensors: dict[str, Tensor] = {}
    for layer, (a, b) in lora.factors.items():
        tensors |= {layer + _A: a, layer + _B: b}
    fill(network, name, tensors, f"adapter {name!r}")
    network.requires_grad_(False)


def nearest(layers: Sequence[str], delta: Callable[[str], Tensor], rank: int) -> tuple[Lora, float]:
    """The LoRA of a rank nearest to given matrices, layer by layer (truncated SVD).

    Args:
        layers: paths of the layers.
        delta: ΔW of a layer, shape (out, in); asked for one layer at a time.
        rank: of the result; layers that need less are filled up with zeros.

    Returns:
        The LoRA, with alpha = rank, and its error: |ΔW − ΔW'| / |ΔW| over all layers (Frobenius).
    """
    decomposed = ((name, *torch.linalg.svd(delta(name), full_matrices=False)) for name in layers)
    return _cut(decomposed, rank)


def truncated(lora: Lora, rank: int) -> tuple[Lora, float]:
    """``nearest`` to a LoRA, found from its factors without ever making the matrices."""

    def decomposed() -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        for layer, (a, b) in lora.factors.items():
            left, b_rest = torch.linalg.qr(b)
            right, a_rest = torch.linalg.qr(a.T)
            u, s, v = torch.linalg.svd(lora.scale * (b_rest @ a_rest.T), full_matrices=False)
            yield layer, left @ u, s, v @ right.T

    return _cut(decomposed(), rank)


def _cut(decomposed: Iterable[tuple[str, Tensor, Tensor, Tensor]], rank: int) -> tuple[Lora, float]:
    """Layers given as U S V, cut to a rank; the singular values are shared between A and B."""
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    lost = whole = 0.0
    for layer, u, s, v in decomposed:
        kept = min(rank, len(s))
        root = s[:kept].sqrt()
        a, b = v.new_zeros(rank, v.shape[1]), u.new_zeros(u.shape[0], rank)
        a[:kept] = root[:, None] * v[:kept]
        b[:, :kept] = u[:, :kept] * root
        factors[layer] = (a, b)
        lost += float(s[rank:].double().square().sum())
        whole += float(s.double().square().sum())
    return Lora(factors, float(rank)), math.sqrt(lost / whole) if whole else 0.0
