"""A denoiser as trainings see it: how it is asked, noised, drawn from, and in part trained.

UNets have ways of their own here; transformers are what their family of fine-tuning says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.method import transformer_family
from spqr_checks.alignment.training import latents, unet
from spqr_checks.alignment.training.noising import Noiser
from spqr_checks.alignment.training.options import ErasingOptions
from spqr_checks.alignment.training.transformer import TransformerView
from spqr_checks.choices import Sampler
from spqr_checks.finetuning.objectives import Denoising
from spqr_checks.generation import conditions
from spqr_checks.models import adapters


class View(Protocol):
    """What trainings ask of a pipeline's denoiser; encoded prompts are records with rows."""

    pipe: DiffusionPipeline
    predictor: Any
    """``(network, x, t, prompts)`` → prediction, shape of x."""
    noiser: Noiser
    unguided: Any
    """What the pipeline's guidance takes for no prompt, one row."""
    shape: tuple[int, int, int]
    """Channels, height and width of the latents."""

    @property
    def targets(self) -> Sequence[str]:
        """Endings of the names of all attention layers that a LoRA is put on."""
        ...

    @property
    def self_targets(self) -> Sequence[str]:
        """Of those in which the image attends to itself."""
        ...

    def encode(self, texts: Sequence[str]) -> Any:
        """One row for each text."""
        ...

    def draw(self, texts: Sequence[str], sampler: Sampler, guidance: float, seed: int) -> Tensor:
        """Finished latents, as ``latents.draw``."""
        ...

    def draw_seeded(self, texts: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> Tensor:
        """Finished latents, as ``latents.draw_seeded``."""
        ...

    def edit(
        self,
        clean: Tensor,
        texts: Sequence[str],
        negative: Sequence[str],
        seeds: Sequence[int],
        sampler: Sampler,
        *,
        strength: float,
    ) -> Tensor:
        """Finished latents by SDEdit, as ``latents.edit``."""
        ...

    def draw_partly(
        self, network: nn.Module, prompts: Any, generator: torch.Generator, **how: Any
    ) -> tuple[Tensor, Tensor]:
        """x_t and t, as ``latents.draw_partly``."""
        ...

    def trainable(self, options: ErasingOptions, seed: int) -> list[nn.Parameter]:
        """As ``unet.trainable``."""
        ...


class UNetView:
    """Stable Diffusion 1, 2 and XL."""

    targets = adapters.TARGETS
    self_targets = tuple(f"attn1.{name}" for name in adapters.TARGETS)

    def __init__(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        self.pipe = pipe
        self.predictor, self.noiser = unet.Predictor(pipe, sampler), Noiser(Denoising(pipe))
        self.shape = self.predictor.shape
        self.unguided = conditions.unguided(pipe)

    def encode(self, texts: Sequence[str]) -> conditions.Conditions:
        """By the pipeline's text encoders."""
        return conditions.encode(self.pipe, texts)

    def draw(self, texts: Sequence[str], sampler: Sampler, guidance: float, seed: int) -> Tensor:
        """By the pipeline itself."""
        return latents.draw(self.pipe, texts, sampler, guidance, seed)

    def draw_seeded(self, texts: Sequence[str], seeds: Sequence[int], sampler: Sampler) -> Tensor:
        """By the pipeline itself."""
        return latents.draw_seeded(self.pipe, texts, seeds, sampler)

    def edit(
        self,
        clean: Tensor,
        texts: Sequence[str],
        negative: Sequence[str],
        seeds: Sequence[int],
        sampler: Sampler,
        *,
        strength: float,
    ) -> Tensor:
        """By the pipeline's scheduler."""
        given = self.pipe, clean, texts, negative, seeds, sampler
        return latents.edit(*given, strength=strength)

    def draw_partly(
        self, network: nn.Module, prompts: Any, generator: torch.Generator, **how: Any
    ) -> tuple[Tensor, Tensor]:
        """By the pipeline's scheduler."""
        given = self.pipe, self.predictor, network, prompts, self.unguided
        return latents.draw_partly(*given, generator=generator, **how)

    def trainable(self, options: ErasingOptions, seed: int) -> list[nn.Parameter]:
        """Of the UNet."""
        return unet.trainable(self.pipe.unet, options, seed)


def view_of(pipe: DiffusionPipeline, sampler: Sampler, method: str) -> View:
    """The view of a pipeline's denoiser. UserError: it is of no family that is known here."""
    if isinstance(getattr(pipe, "unet", None), nn.Module):
        return UNetView(pipe, sampler)
    return TransformerView(pipe, sampler, transformer_family(pipe, method))
