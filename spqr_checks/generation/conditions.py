"""Prompts as a denoiser sees them: token embeddings, and pooled ones where the model wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

_BATCH = 32


@dataclass(frozen=True)
class Encoded:
    """Encoded prompts: a record whose every tensor has one row for each of them."""

    def _rows(self) -> dict[str, Tensor]:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in found.items() if isinstance(part, Tensor)}

    def _with(self, rows: dict[str, Tensor]) -> Self:
        changes: Any = rows
        return replace(self, **changes)

    def __len__(self) -> int:
        return len(next(iter(self._rows().values())))

    def __getitem__(self, index: Tensor | slice) -> Self:
        return self._with(
            {
                name: part[index.to(part.device) if isinstance(index, Tensor) else index]
                for name, part in self._rows().items()
            }
        )

    def repeated(self, n: int) -> Self:
        """Every prompt ``n`` times."""
        return self._with(
            {name: part.repeat_interleave(n, 0) for name, part in self._rows().items()}
        )

    def where(self, mask: Tensor, other: Encoded) -> Self:
        """These prompts where the mask holds, else those of ``other`` (one or as many)."""
        others = other._rows()
        return self._with(
            {
                name: torch.where(
                    mask.to(part.device).view(-1, *[1] * (part.ndim - 1)), part, others[name]
                )
                for name, part in self._rows().items()
            }
        )


EncodedT = TypeVar("EncodedT", bound=Encoded)


@dataclass(frozen=True)
class Conditions(Encoded):
    """Prompts as a UNet sees them.

    Attributes:
        hidden: token embeddings, shape (prompts, tokens, width).
        pooled: pooled embeddings, shape (prompts, width), if the pipeline makes them (SDXL).
    """

    hidden: Tensor
    pooled: Tensor | None = None


def joined(parts: Sequence[EncodedT]) -> EncodedT:
    """Several batches of prompts as one."""
    rows = [part._rows() for part in parts]
    return parts[0]._with({name: torch.cat([part[name] for part in rows]) for name in rows[0]})


@torch.no_grad()
def encode(pipe: DiffusionPipeline, prompts: Sequence[str]) -> Conditions:
    """Encodes prompts by the pipeline's own text encoders, a fixed number at a time."""
    parts: list[Conditions] = []
    for start in range(0, len(prompts), _BATCH):
        encoded = pipe.encode_prompt(
            prompt=list(prompts[start : start + _BATCH]),
            device=pipe.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        # Stable Diffusion: (hidden, negative); XL: (hidden, negative, pooled, negative pooled)
        parts.append(Conditions(encoded[0], encoded[2] if len(encoded) > 2 else None))
    return joined(parts)


@torch.no_grad()
def unguided(pipe: DiffusionPipeline) -> Conditions:
    """What guidance takes for no prompt, one row: with SDXL zeros, else the encoding of ""."""
    _, hidden, *pooled = pipe.encode_prompt(
        prompt=[""], device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    return Conditions(hidden, pooled[1] if pooled else None)
