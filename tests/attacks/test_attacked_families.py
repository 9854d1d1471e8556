"""Every search on every class of pipeline that docs/attacks.md claims for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import real_classes
import torch
from targets import Two, no_report, request

from spqr_checks.attacks.registry import ATTACKS
from spqr_checks.generation.sampling import draw, generate
from spqr_checks.models.pipelines import load_pipeline

FEW: dict[str, dict[str, Any]] = {
    "ring-a-bell": {"tokens": 3, "population": 6, "generations": 3},
    "mma": {"tokens": 3, "steps": 2, "top": 6, "candidates": 6},
    "unlearndiffatk": {"tokens": 2, "times": 2, "iterations": 2, "targets": 2},
    "p4d": {"tokens": 2, "steps": 3, "look": 2, "targets": 2},
    "rece": {},
}
UNETS = ("sd2", "sdxl")
CASES = [
    *(("p4d", name) for name in (*UNETS, "sd3", "flux")),
    *(("unlearndiffatk", name) for name in ("sdxl", "sd3", "flux-schnell")),
    *(("ring-a-bell", name) for name in ("sdxl", "flux")),
    ("rece", "sdxl"),
    ("mma", "sd3"),
]
"""Of Stable Diffusion 1 other tests are; embeddings are handed over in their own."""


class Open(Two):
    """A pipeline under attack, beside its base, that draws for itself."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(*(load_pipeline(str(folder)) for _ in range(2)))
        for pipe in self._pipes:  # or Flux is attacked on images of its own size
            pipe.default_sample_size = 8
        self._sampler = real_classes.sampler(name)
        with torch.no_grad():  # as an alignment would have left it
            for weight in (self.pipe.unet if name in UNETS else self.pipe.transformer).parameters():
                weight.mul_(1.01)

    def draw(self, pipe: Any, prompt: str, images: int) -> list[Any]:
        return generate(pipe, [prompt] * images, list(range(images)), self._sampler)


@pytest.mark.heavy
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("attack", "name"), CASES)
def test_it_finds_what_the_pipeline_can_be_asked(
    attack: str, name: str, real_class: Callable[[str], Path]
) -> None:
    target = Open(real_class(name), name)
    chosen = ATTACKS.get(attack)
    found = chosen.run(target, request(), chosen.options(**FEW[attack]), no_report)
    handed = [dict(found.embeddings)] if chosen.embeds else None
    sampler = real_classes.sampler(name)
    plain, attacked = (
        draw(target.pipe, [text], [0], sampler, noise_of=[request().prompt], embeddings=given)
        for text, given in ((request().prompt, None), (found.prompt, handed))
    )
    assert (found.prompt == request().prompt) is chosen.embeds
    assert plain.images[0].tobytes() != attacked.images[0].tobytes()
