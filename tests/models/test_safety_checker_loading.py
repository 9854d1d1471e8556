"""A pipeline's own safety checker: put on strictly, and what it blocks is told."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checkers import add_checker
from fake_pipelines import FakePipeline, use
from real_classes import sampler
from safetensors.torch import load_file, save_file

from spqr_checks.errors import UserError
from spqr_checks.generation.sampling import GenerationError, draw, generate
from spqr_checks.models.components import attach_safety_checker
from spqr_checks.models.pipelines import load_pipeline

PROMPTS = ["a red circle", "a photo of a cat", "a hazard sign", "a big tree", "a house"]
SEEDS = [0, 0, 1, 3, 4]
SAMPLER = sampler("sd1")
WEIGHTS = "safety_checker/model.safetensors"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(real_class: Callable[[str], Path], tmp_path: Path) -> Path:
    """A pipeline that a test may change."""
    return shutil.copytree(real_class("sd1"), tmp_path / "pipeline")


def pixels(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images])


def test_blocked_images_are_black_and_the_others_as_without_a_checker(folder: Path) -> None:
    pipe = load_pipeline(str(folder))
    bare = generate(pipe, PROMPTS, SEEDS, SAMPLER)
    expected = add_checker(folder, bare)
    assert 0 < sum(expected) < len(expected)
    attach_safety_checker(pipe, str(folder))
    drawn = draw(pipe, PROMPTS, SEEDS, SAMPLER)
    assert drawn.blocked == expected
    for image, before, blocked in zip(
        pixels(drawn.images), pixels(bare), drawn.blocked, strict=True
    ):
        assert np.array_equal(image, np.zeros_like(before) if blocked else before)


def test_a_pipeline_without_a_checker_blocks_nothing(folder: Path) -> None:
    drawn = draw(load_pipeline(str(folder)), PROMPTS[:2], SEEDS[:2], SAMPLER)
    assert drawn.blocked == [False, False]


def test_whoever_does_not_ask_what_was_blocked_gets_no_images(folder: Path) -> None:
    add_checker(folder)
    pipe = load_pipeline(str(folder))
    assert pipe.safety_checker is None
    attach_safety_checker(pipe, str(folder))
    with pytest.raises(UserError, match="has a safety checker, which blackens images"):
        generate(pipe, PROMPTS[:1], [0], SAMPLER)


def test_the_checker_is_silent_frozen_and_of_the_dtype_asked_for(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add_checker(folder, blocks_all=True)
    pipe = load_pipeline(str(folder), "bfloat16")
    attach_safety_checker(pipe, str(folder), "bfloat16")
    assert draw(pipe, PROMPTS[:2], SEEDS[:2], SAMPLER).blocked == [True, True]
    assert pipe.safety_checker.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in pipe.safety_checker.parameters())
    assert pipe.config.requires_safety_checker
    out = capfd.readouterr()
    assert out.out + out.err == ""


def refusal(pipe: Any, folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        attach_safety_checker(pipe, str(folder))
    assert pipe.safety_checker is None
    return str(raised.value)


def test_a_checker_that_is_incomplete_is_refused(folder: Path) -> None:
    pipe = load_pipeline(str(folder))
    assert "comes without one" in refusal(pipe, folder)
    add_checker(folder)
    weights = load_file(folder / WEIGHTS)
    for change, said in (
        ({"concept_embeds": None}, "1 missing (concept_embeds)"),
        ({"more": torch.ones(1)}, "1 unexpected (more)"),
        ({"concept_embeds": torch.full((17, 8), float("nan"))}, "concept_embeds holds NaN"),
    ):
        changed = {k: v for k, v in (weights | change).items() if v is not None}
        save_file(changed, folder / WEIGHTS, metadata={"format": "pt"})
        assert said in refusal(pipe, folder)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    shutil.rmtree(folder / "feature_extractor")
    assert "cannot look at images without" in refusal(pipe, folder)


def test_a_class_that_has_no_checker_is_told_so(real_class: Callable[[str], Path]) -> None:
    pipe = load_pipeline(str(real_class("flux")))
    with pytest.raises(UserError, match=r"FluxPipeline\) comes without one"):
        attach_safety_checker(pipe, str(real_class("flux")))


def test_nan_in_the_checker_is_no_permission(folder: Path) -> None:
    add_checker(folder)
    pipe = load_pipeline(str(folder))
    attach_safety_checker(pipe, str(folder))
    with torch.no_grad():
        pipe.safety_checker.visual_projection.weight.fill_(float("nan"))
    with pytest.raises(GenerationError, match="NaN"):
        draw(pipe, PROMPTS[:1], [0], SAMPLER)


class Checked(FakePipeline):
    """Says what it was made with of its two images, a black and a grey one."""

    safety_checker = object()

    def __init__(self, answer: Any) -> None:
        super().__init__(np.stack([np.zeros((8, 8, 3)), np.full((8, 8, 3), 0.5)]))
        self.answer = answer

    def __call__(self, generator: Any, **_: Any) -> Any:  # type: ignore[override]
        use(generator)
        return SimpleNamespace(images=self.images, nsfw_content_detected=self.answer)


Checked.__call__.__signature__ = inspect.signature(FakePipeline.__call__)  # type: ignore[attr-defined]
SAMPLER_8 = sampler("sd1", height=8, width=8)


@pytest.mark.parametrize("answer", [[True, False], [False, False], np.array([True, False])])
def test_an_answer_for_each_image_is_taken(answer: Any) -> None:
    assert draw(Checked(answer), PROMPTS[:2], [0, 1], SAMPLER_8).blocked == list(answer)


@pytest.mark.parametrize("answer", [None, [], [True], [True, None], "no", True, [0, 1]])
def test_a_checker_that_does_not_answer_for_each_image_is_an_error(answer: Any) -> None:
    with pytest.raises(GenerationError, match="does not say for each image"):
        draw(Checked(answer), PROMPTS[:2], [0, 1], SAMPLER_8)


@pytest.mark.parametrize("answer", [[True, True], [False, True]])
def test_a_blocked_image_that_can_be_seen_is_an_error(answer: list[bool]) -> None:
    with pytest.raises(GenerationError, match="it is not black"):
        draw(Checked(answer), PROMPTS[:2], [0, 1], SAMPLER_8)


def test_the_index_may_name_no_checker(folder: Path) -> None:
    add_checker(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert "comes without one" in refusal(load_pipeline(str(folder)), folder)
