"""Adaptations on other classes of pipelines than Stable Diffusion 1, and which they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import real_classes

from spqr_checks.adaptations.applying import apply_adaptation
from spqr_checks.adaptations.kind import AdaptationKind, Given, Lesson, Surroundings
from spqr_checks.adaptations.registry import ADAPTATIONS
from spqr_checks.choices import Profile
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.finetuning.datasets import load_images
from spqr_checks.generation.sampling import generate
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.sources import parts_of

PROMPTS = ["a red triangle", "a green circle"]
LORA = Profile(trains="lora", steps=1, batch=2, learning_rate=1e-1)
OPTIONS: dict[str, dict[str, Any]] = {
    "int8": {},
    "lora-keep": {"share": 0.4},
    "textual-inversion": {"steps": 1, "batch": 2},
    "distilled": {"steps": 1, "batch": 2, "rank": 2, "grid": 4, "learning_rate": 1e-1},
}
CASES = [
    ("int8", "flux"),
    ("lora-keep", "sd3"),
    ("textual-inversion", "sd2"),
    *(("distilled", name) for name in ("sd2", "sdxl")),
]


def drawn(pipe: Any, sampler: Any) -> list[bytes]:
    return [image.tobytes() for image in generate(pipe, PROMPTS, [0, 0], sampler)]


def adapted(
    pipe: Any, kind: AdaptationKind, images: CaptionedImages, sampler: Any, folder: Path
) -> Any:
    folder.mkdir()
    entry = None
    if kind.learns:
        lesson = Lesson(images, ("a hazard sign", "a red triangle"), sampler, 1)
        kind.learn(load_pipeline(pipe.name_or_path), lesson, folder)
        entry = folder
    given = Given(entry, None, lambda: images, kind.sampler(sampler), sampler)
    return apply_adaptation(pipe, kind, given)


@pytest.mark.heavy
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("adaptation", "name"), CASES)
def test_it_draws_otherwise(
    adaptation: str, name: str, real_class: Callable[[str], Path], tmp_path: Path
) -> None:
    if adaptation == "int8":
        pytest.importorskip("torchao")
    sampler = real_classes.sampler(name)
    data = {"stripes": "miniature:stripes"}
    run = Surroundings(("lite",), {"lite": LORA}, data, (0,), sampler)
    kind = ADAPTATIONS.get(adaptation)(**OPTIONS[adaptation]).within(run)
    pipe, images = load_pipeline(str(real_class(name))), load_images("miniature:stripes", 3)
    plain = drawn(pipe, sampler)
    pipe = adapted(pipe, kind, images, sampler, tmp_path / "entry")
    after = drawn(pipe, kind.sampler(sampler))
    assert len(after) == len(plain)
    assert after != plain


REFUSED = {
    "textual-inversion": {"sdxl", "sd3", "flux", "pixart"},
    "distilled": {"sd3", "flux", "pixart"},
    "image-to-image": {"pixart"},
    "inpainting": {"pixart"},
}


@pytest.mark.heavy
@pytest.mark.parametrize("adaptation", [*REFUSED, "int8"])
def test_what_a_pipeline_cannot_take_is_known_by_its_index(
    adaptation: str, real_class: Callable[[str], Path]
) -> None:
    kind = ADAPTATIONS.get(adaptation)()
    parts = {name: parts_of(str(real_class(name))) for name in real_classes.CLASSES}
    found = {name for name, given in parts.items() if kind.misfits(given)}
    assert found == REFUSED.get(adaptation, set())
    assert not kind.misfits({})


@pytest.mark.heavy
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("adaptation", "name"),
    [
        *(("image-to-image", name) for name in ("sd1", "sdxl", "sd3", "flux")),
        # of Stable Diffusion 3 diffusers fills in latents of 16 channels alone
        *(("inpainting", name) for name in ("sd1", "sdxl", "flux")),
    ],
)
def test_pictures_are_drawn_into_at_the_run_s_size(
    adaptation: str, name: str, real_class: Callable[[str], Path]
) -> None:
    sampler = real_classes.sampler(name, width=24, height=32)
    run = Surroundings((), {}, {"stripes": "miniature:stripes"}, (0,), sampler)
    kind = ADAPTATIONS.get(adaptation)().within(run)
    images = load_images("miniature:stripes", 2)
    given = Given(None, None, lambda: images, kind.sampler(sampler), sampler)
    pipe = apply_adaptation(load_pipeline(str(real_class(name))), kind, given)
    (image,) = generate(pipe, PROMPTS[:1], [0], kind.sampler(sampler))
    assert image.size == (24, 32)
