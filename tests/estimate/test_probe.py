"""The probe: small samples of a run's work, timed and thrown away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import Progress, Report
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.choices import Profile
from spqr_checks.estimate import probe as probing
from spqr_checks.estimate.estimate import Prices, plans, unpriced
from spqr_checks.estimate.probe import Enough, alignment_seconds, probe, tuning_seconds, until
from spqr_checks.finetuning import examples, trainer
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.runtime.run import Run
from spqr_checks.settings import load_settings
from spqr_checks.store.timings import Timing, Work

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

ESD = {"esd": {"steps": 50, "batch": 2, "latents": "student", "keep_batch": 2}}


def session_of(folder: Path, base: Path, **settings: Any) -> MeasuringSession:
    given = {
        "preset": "miniature",
        "base": str(base),
        "candidate": "method:esd",
        "store": str(folder / ".spqr"),
        "concepts": "hazard",
        "languages": "en",
        "dataset_limit": 64,
        "method": ESD,
    }
    return MeasuringSession(Run.from_settings(load_settings(folder, given | settings)))


def wanted(session: MeasuringSession) -> list[Work]:
    return [task.work for task in unpriced(plans(session)[-1], Prices([]))]


def by_name(timings: list[Timing]) -> dict[str, Timing]:
    return {timing.name: timing for timing in timings}


@pytest.mark.trains
def test_every_kind_of_work_is_timed_and_nothing_is_kept(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    session = session_of(tmp_path, tiny_pipeline_dir)
    works = wanted(session)
    found = probe(session, works)
    assert {timing.name for timing in found} == {work.name for work in works}
    assert all(timing.seconds > 0 for timing in found)
    prices = Prices(found)
    assert unpriced(plans(session)[-1], prices) == []
    assert list(tmp_path.iterdir()) == []


class Clock:
    """A clock that only what is timed moves on, and stand-ins that take so many seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(probing.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(examples, "encode", self.encode)
        monkeypatch.setattr(trainer, "finetune", self.finetune)

    def encode(self, pipe: Any, data: CaptionedImages, resolution: int | None = None) -> None:
        self.now += 2 * len(data)

    def finetune(self, pipe: Any, data: CaptionedImages, *_: Any, report: Any, **__: Any) -> None:
        self.now += 7
        self.encode(pipe, data)
        for step in range(1, 99):
            self.now += 5
            report(step, 98, 0.1)


@pytest.mark.parametrize("deadline", [9999.0, 0.0])
def test_a_fine_tuning_is_its_preparation_its_data_and_its_steps(
    deadline: float, monkeypatch: pytest.MonkeyPatch, tiny_pipeline: StableDiffusionPipeline
) -> None:
    clock = Clock(monkeypatch)
    data = CaptionedImages([Image.new("RGB", (8, 8))] * 3, ["a scene"] * 3)
    profile = Profile(trains="lora", epochs=3)
    found = tuning_seconds(
        tiny_pipeline, data, profile, 1, images=100, steps=600, deadline=deadline
    )
    assert found == 7 + 2 * 100 + 5 * 600
    # one warm-up, the data twice, and two steps or four
    assert clock.now == 1000 + 2 * (1 + 3 + 3) + 7 + 5 * (2 if deadline == 0 else 4)


@pytest.mark.parametrize(
    ("reports", "seconds"),
    [
        ([(30.0, 1), (95.0, 20)], 30 + 65 / 19 * 49),
        ([(30.0, 1)], 30 + 0.5 * 49),
        ([], None),
        ([(30.0, 1), (80.0, 50)], 80),
    ],
)
def test_an_alignment_is_what_comes_before_its_steps_and_these(
    reports: list[tuple[float, int]],
    seconds: float | None,
    monkeypatch: pytest.MonkeyPatch,
    tiny_pipeline: StableDiffusionPipeline,
    tiny_pipeline_dir: Path,
    tmp_path: Path,
) -> None:
    clock = Clock(monkeypatch)
    run = session_of(tmp_path, tiny_pipeline_dir).run
    start = clock.now

    def align(self: Any, pipe: Any, request: Any, options: Any, out: Path, report: Report) -> None:
        for at, step in reports:
            clock.now = start + at
            report(Progress(step, 50, 0.1, 2.0, 0))
        raise Enough

    monkeypatch.setattr(Method, "align", align)
    found = alignment_seconds(tiny_pipeline, run, "esd", start + 1e6)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_an_alignment_without_steps_is_timed_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
    tiny_pipeline: StableDiffusionPipeline,
    tiny_pipeline_dir: Path,
    tmp_path: Path,
) -> None:
    clock = Clock(monkeypatch)

    def align(*_: Any) -> None:
        clock.now += 3

    monkeypatch.setattr(Method, "align", align)
    run = session_of(tmp_path, tiny_pipeline_dir).run
    assert alignment_seconds(tiny_pipeline, run, "uce", clock.now) == 3


@pytest.mark.heavy
def test_when_time_is_over_drawing_is_continued_on_paper(
    tiny_pipeline_dir: Path, tmp_path: Path
) -> None:
    def image_seconds(steps: int, budget: float) -> float:
        sampler = {"steps": steps, "guidance": 3.0, "batch": 36}
        session = session_of(tmp_path, tiny_pipeline_dir, sampler=sampler)
        images = [work for work in wanted(session) if work.name == "images"]
        (timing,) = probe(session, images, budget)
        assert timing.images is not None
        return timing.seconds / timing.images

    image_seconds(2, 60)  # warms up
    long = image_seconds(900, 0.0)
    assert long > image_seconds(3, 60) * 10


@pytest.mark.heavy
def test_what_did_not_come_far_enough_has_no_time(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    # the pool is drawn before the first step
    method = {"esd": {"steps": 50, "latents": "pool", "pool": 480, "target": "anchor"}}
    session = session_of(tmp_path, tiny_pipeline_dir, method=method)
    alignments = [work for work in wanted(session) if work.name == "alignment esd"]
    assert len(alignments) == 1
    assert probe(session, alignments, 0.0) == []


def test_the_number_of_threads_is_put_back(tiny_pipeline_dir: Path, tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        session = session_of(tmp_path, tiny_pipeline_dir)
        assert probe(session, []) == []
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_deadline_ends_a_computation_after_two_steps(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    import torch

    unet = tiny_pipeline.unet
    latents, hidden = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 16)
    done = 0
    with until(time.monotonic() - 1, tiny_pipeline) as calls:
        for _ in range(9):
            unet(latents, 1, hidden)
            done += 1
    assert (done, len(calls)) == (2, 3)
    with until(time.monotonic() + 60, tiny_pipeline) as calls:
        for _ in range(4):
            unet(latents, 1, hidden)
        raise Enough
    assert len(calls) == 4
    unet(latents, 1, hidden)
    assert len(calls) == 4  # nobody watches any more
    with pytest.raises(RuntimeError), until(0.0, tiny_pipeline):
        raise RuntimeError("errors pass through")
