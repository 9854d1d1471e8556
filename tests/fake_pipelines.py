"""Pipelines and schedulers that misbehave in a chosen way."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import (
    EulerAncestralDiscreteScheduler,
)


def use(generators: list[torch.Generator]) -> None:
    """Draw a latent from each, as pipelines do."""
    for generator in generators:
        torch.randn(1, generator=generator)


class Ungoverned(EulerAncestralDiscreteScheduler):
    """Draws its noise from torch's global generator."""

    def step(self, model_output: Any, timestep: Any, sample: Any, return_dict: bool = True) -> Any:
        return super().step(model_output, timestep, sample, None, return_dict)


class FakeScheduler:
    config: ClassVar[dict[str, Any]] = {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FakeScheduler:
        return cls()


class FakePipeline:
    """A pipeline that draws what it was made with."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.components: dict[str, Any] = {}
        self.scheduler = FakeScheduler()
        self.device = torch.device("cpu")
        self.given: dict[str, Any] = {}

    def set_progress_bar_config(self, **_: Any) -> None: ...

    def __call__(
        self,
        prompt: list[str],
        generator: Any,
        output_type: str,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        height: int | None = None,
        width: int | None = None,
        negative_prompt: Any = None,
    ) -> FakePipeline:
        use(generator)
        return self


class Unguided(FakePipeline):
    def __call__(  # type: ignore[override]
        self, prompt: Any, generator: Any, output_type: str, num_inference_steps: int, **_: Any
    ) -> FakePipeline:
        use(generator)
        return self


class Distilled(FakePipeline):
    """As Flux: guidance is an input of the transformer, true CFG is off by default."""

    def __init__(self, images: np.ndarray, guidance_embeds: bool) -> None:
        super().__init__(images)
        self.transformer = torch.nn.Identity()
        self.transformer.config = type("C", (), {"guidance_embeds": guidance_embeds})()

    def __call__(  # type: ignore[override]
        self,
        prompt: Any,
        generator: Any,
        output_type: str,
        num_inference_steps: int = 50,
        guidance_scale: float = 3.5,
        true_cfg_scale: float = 1.0,
        negative_prompt: Any = None,
    ) -> FakePipeline:
        self.given = {"guidance_scale": guidance_scale}
        use(generator)
        return self
