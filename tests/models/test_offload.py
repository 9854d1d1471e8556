"""Weights that wait in main memory: refused on the CPU, and the images stay the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from real_classes import sampler

from spqr_checks.errors import UserError
from spqr_checks.generation.sampling import _device, generate
from spqr_checks.models.pipelines import load_pipeline, place
from spqr_checks.models.weights import networks
from spqr_checks.settings import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = ["a red circle", "a photo of a cat"]


class Placed:
    """A pipeline that notes what is asked of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.error = error

    def _note(self, what: str, device: str) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append((what, device))

    def to(self, device: str) -> None:
        self._note("to", device)

    def enable_model_cpu_offload(self, device: str) -> None:
        self._note("model", device)

    def enable_sequential_cpu_offload(self, device: str) -> None:
        self._note("sequential", device)


@pytest.mark.parametrize(
    ("offload", "way"), [("none", "to"), ("model", "model"), ("sequential", "sequential")]
)
def test_each_way_is_the_one_asked_for(offload: str, way: str) -> None:
    pipe: Any = Placed()
    place(pipe, "cuda:1", offload)
    assert pipe.asked == [(way, "cuda:1")]


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_on_the_cpu_there_is_nothing_to_offload(offload: str) -> None:
    pipe: Any = Placed()
    with pytest.raises(UserError, match=f"offload = '{offload}' .* the device is the CPU"):
        place(pipe, "cpu", offload)
    assert not pipe.asked


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_the_settings_refuse_it_before_anything_is_loaded(tmp_path: Path, offload: str) -> None:
    with pytest.raises(UserError, match="the device is the CPU; set --spqr-device"):
        load_settings(tmp_path, {"offload": offload})
    assert load_settings(tmp_path, {"offload": offload, "device": "cuda"}).offload == offload


def test_a_pipeline_that_cannot_be_offloaded_says_why() -> None:
    pipe: Any = Placed(ValueError("no `model_cpu_offload_seq` class attribute"))
    with pytest.raises(UserError, match="on 'cuda' with offload 'model': no `model_cpu_offload"):
        place(pipe, "cuda", "model")


def test_noise_is_drawn_for_where_the_pipeline_computes() -> None:
    offloaded = SimpleNamespace(
        device=torch.device("meta"), _execution_device=torch.device("cuda:0")
    )
    assert _device(offloaded) == torch.device("cuda:0")
    assert _device(SimpleNamespace(device=torch.device("cpu"))) == torch.device("cpu")


def hooked(pipe: Any, offload: str) -> None:
    """What diffusers does for an accelerator, with the CPU in its place."""
    for part in networks(pipe).values():
        if offload == "model":
            accelerate.cpu_offload_with_hook(part, "cpu")
        else:
            accelerate.cpu_offload(part, torch.device("cpu"), offload_buffers=True)


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_images_are_the_same_through_the_hooks(
    real_class: Callable[[str], Path], name: str, offload: str
) -> None:
    pipe = load_pipeline(str(real_class(name)))
    before = generate(pipe, PROMPTS, [0, 1], sampler(name))
    hooked(pipe, offload)
    if offload == "sequential":
        assert pipe.device.type == "meta"
    after = generate(pipe, PROMPTS, [0, 1], sampler(name))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
