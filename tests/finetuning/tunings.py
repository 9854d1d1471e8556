"""What the tests of fine-tuning share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from spqr_checks.choices import Profile
from spqr_checks.models import adapters
from spqr_checks.models.lora_layers import activate

KINDS = ("lora", "cross_attention", "denoiser")


@dataclass(frozen=True)
class Tuned:
    """A fine-tuning with seed 3 that has been made, on a pipeline that should not have changed."""

    kind: str
    pipe: StableDiffusionPipeline
    before: Snapshot
    folder: Path
    losses: list[float]


@dataclass(frozen=True)
class Snapshot:
    """All of a pipeline that a training could touch."""

    tensors: dict[str, Tensor]
    flags: dict[str, tuple[bool, bool]]
    modules: list[str]

    @classmethod
    def of(cls, pipe: StableDiffusionPipeline) -> Snapshot:
        parts = {"unet": pipe.unet, "vae": pipe.vae, "text_encoder": pipe.text_encoder}
        named = {f"{k}.{n}": p for k, part in parts.items() for n, p in part.named_parameters()}
        return cls(
            {name: parameter.detach().clone() for name, parameter in named.items()},
            {name: (p.requires_grad, p.grad is None) for name, p in named.items()},
            [f"{n} {m.training} {type(m)}" for p in parts.values() for n, m in p.named_modules()],
        )

    def equals(self, other: Snapshot) -> bool:
        return (
            not changed(self.tensors, other.tensors)
            and self.flags == other.flags
            and self.modules == other.modules
        )


def profile(trains: str, **changes: Any) -> Profile:
    """Short, and fast enough to be seen."""
    defaults = {"steps": 2, "batch": 2, "learning_rate": 1e-2, "rank": 4, "alpha": 12.0}
    return Profile.model_validate({"trains": trains} | defaults | changes)


def predict(pipe: StableDiffusionPipeline) -> Tensor:
    """The denoiser's output on a fixed input."""
    generator = torch.Generator().manual_seed(5)
    x, text = (torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 32, 16)))
    dtype = pipe.unet.dtype
    with torch.no_grad():
        predicted = pipe.unet(x.to(dtype), torch.tensor([9, 700]), text.to(dtype)).sample
    assert isinstance(predicted, Tensor)
    return predicted


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that differ."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def add_safety(pipe: StableDiffusionPipeline) -> None:
    """An adapter, frozen and active, that changes every attention layer."""
    parameters = adapters.add_lora(pipe.unet, 2, 2.0, adapters.TARGETS, 7, "safety")
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    activate(pipe.unet, ["safety"])


def files(folder: Path) -> dict[str, bytes]:
    """Contents of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
