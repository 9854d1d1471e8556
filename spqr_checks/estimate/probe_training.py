"""Times the first steps of a fine-tuning and of an alignment. Heavy inside its functions only."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from spqr_checks.alignment import registry as alignment
from spqr_checks.alignment.request import Progress
from spqr_checks.choices import Profile
from spqr_checks.estimate.stopwatch import Enough, until
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.runtime.requests import alignment_request
from spqr_checks.runtime.run import Run

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_STEPS = 4


def tuning_seconds(
    pipe: DiffusionPipeline,
    data: CaptionedImages,
    profile: Profile,
    threads: int,
    *,
    images: int,
    steps: int,
    deadline: float,
) -> float | None:
    """Seconds of a fine-tuning of so many steps on so many images, by a few steps on a few.

    Encoding the data grows with their number. The first step also warms up, so that a second one
    is waited for in any case. None if the training ended before.
    """
    from spqr_checks.finetuning import trainer

    encoding = _encoding_seconds(pipe, data, profile.resolution)
    short = profile.model_copy(update={"steps": _STEPS + 1, "curriculum": ()})
    done: list[float] = []

    def report(step: int, _of: int, _loss: float) -> None:
        done.append(time.monotonic())
        if step == _STEPS or (step > 1 and done[-1] > deadline):
            raise Enough

    start = time.monotonic()
    with TemporaryDirectory() as folder, until(deadline, pipe):
        trainer.finetune(
            pipe, data, short, 0, Path(folder), threads, base_digest="probe", report=report
        )
    if len(done) < 2:
        return None
    each = (done[-1] - done[0]) / (len(done) - 1)
    setup = max(0.0, done[0] - start - each - encoding * len(data))
    return setup + encoding * images + each * steps


def _encoding_seconds(
    pipe: DiffusionPipeline, data: CaptionedImages, resolution: int | None
) -> float:
    """Of one image and its caption."""
    from spqr_checks.finetuning.examples import encode

    first = CaptionedImages(data.images[:1], data.captions[:1])
    encode(pipe, first, resolution)  # warms up
    start = time.monotonic()
    encode(pipe, data, resolution)
    return (time.monotonic() - start) / len(data)


def alignment_seconds(
    pipe: DiffusionPipeline, run: Run, method_name: str, deadline: float
) -> float | None:
    """Seconds of the candidate's alignment, by its first steps; None if it did not get to any."""
    method = alignment.method(method_name)
    options = method.parse(run.settings.method.get(method.name, {}))
    request = alignment_request(run.settings, run.alignment_prompts)
    said: list[tuple[float, Progress]] = []

    def report(progress: Progress) -> None:
        said.append((time.monotonic(), progress))
        if len(said) > 1 or said[-1][0] > deadline:
            raise Enough

    start = time.monotonic()
    finished = False
    with TemporaryDirectory() as folder, until(deadline, pipe):
        method.align(pipe, request, options, Path(folder), report)
        finished = True
    if finished:
        return time.monotonic() - start
    if not said:
        return None
    (first_at, first), (last_at, last) = said[0], said[-1]
    if last.step > first.step:
        each = (last_at - first_at) / (last.step - first.step)
    else:
        each = 1 / max(first.steps_per_second, 1e-9)
    return first_at - start + each * (first.steps - first.step)
