"""Times a little of what no timing is known of: one small batch, a few steps. Keeps nothing.

Heavy libraries are imported when something is probed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from PIL import Image

from spqr_checks.alignment import registry as alignment
from spqr_checks.alignment.request import Progress
from spqr_checks.attacks import attack
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.choices import Profile
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.matrix import BASE
from spqr_checks.prompts.prompt import PromptGroup
from spqr_checks.runtime import workloads
from spqr_checks.runtime.requests import alignment_request
from spqr_checks.runtime.run import Run
from spqr_checks.store.timings import Timing, Work

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

BUDGET = 60.0
_IMAGES = 4
_SIDE = 512
_STEPS = 4


def probe(
    session: MeasuringSession, wanted: Sequence[Work], budget: float = BUDGET
) -> list[Timing]:
    """Times what is wanted, as far as the time allows.

    What is cut off is continued on paper: time grows with the steps of the sampler or the
    training. Images are looked at and learned from blank ones, which takes as long. What is in the
    works when the time is over, a model being loaded or one step, is still waited for.

    Args:
        wanted: one piece of work of each kind.
        budget: seconds, shared among the kinds.

    Returns:
        A timing of each piece of work that came far enough.

    Raises:
        UserError: for models or data that cannot be used, as in the run.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(session.run.settings.threads)
    try:
        return _Probe(session, budget).timings(wanted)
    finally:
        torch.set_num_threads(threads)


class _Probe:
    def __init__(self, session: MeasuringSession, budget: float) -> None:
        self._session, self._run = session, session.run
        self._settings = session.run.settings
        self._end = time.monotonic() + budget

    def timings(self, wanted: Sequence[Work]) -> list[Timing]:
        # an alignment may prepare for long before its first step, and changes the pipeline
        heads = (
            workloads.ATTACKING,
            workloads.TUNING,
            workloads.ADAPTING,
            workloads.ALIGNING,
        )
        trained = [work for head in heads for work in wanted if work.name.startswith(head)]
        seconds: dict[Work, float | None] = {}
        drawing = 0.0
        if any(work.name == workloads.DRAWING or _drawn_first(work) for work in wanted):
            drawing = self._draw(1 + len(trained))
        for work in wanted:
            if work.name == workloads.DRAWING:
                seconds[work] = drawing * (work.images or 1)
            elif work not in trained:
                each = self._read(work) + (drawing if _drawn_first(work) else 0.0)
                seconds[work] = each * (work.images or 1)
        for number, work in enumerate(trained):
            seconds[work] = self._train(work, drawing, len(trained) - number)
        return [
            Timing(**dict(work), label="probe", seconds=took)
            for work, took in seconds.items()
            if took is not None
        ]

    def _deadline(self, parts: int) -> float:
        """Of the first of so many parts that share the time left."""
        now = time.monotonic()
        return now + max(0.0, self._end - now) / parts

    @cached_property
    def _pipeline(self) -> DiffusionPipeline:
        from spqr_checks.models.pipelines import load_pipeline

        return load_pipeline(self._settings.base, self._settings.dtype, self._settings.device)

    @cached_property
    def _blank(self) -> CaptionedImages:
        sampler, every = self._settings.sampler, self._run.prompts.prompts
        texts = [p.text for p in every if p.kind == "benign"] or [p.text for p in every]
        number = min(_IMAGES, sampler.batch)
        side = (sampler.width or _SIDE, sampler.height or _SIDE)
        return CaptionedImages(
            [Image.new("RGB", side, "grey") for _ in range(number)],
            [texts[i % len(texts)] for i in range(number)],
        )

    def _draw(self, parts: int) -> float:
        """Seconds of one image."""
        from spqr_checks.generation.sampling import generate

        sampler, prompts = self._settings.sampler, self._blank.captions
        whole = self._settings.offload == "none"
        pipe = self._pipeline if whole else self._session.states.pipeline(BASE)
        drawn = 0
        start = time.monotonic()
        with until(self._deadline(parts), pipe) as calls:
            drawn = len(generate(pipe, prompts, [0] * len(prompts), sampler))
        seconds = time.monotonic() - start
        if not drawn:  # cut off; the decoder, which comes last, is left out
            seconds = sampler.steps * (calls[-1] - calls[0]) / (len(calls) - 1)
        return seconds / len(prompts)

    def _read(self, work: Work) -> float:
        """Seconds of one image."""
        settings, images, prompts = self._settings, self._blank.images, self._blank.captions
        read: Callable[[], object]
        if work.name == workloads.JUDGED:
            from spqr_checks.judges.registry import load_judge

            concepts, threshold = self._run.policy.concepts, settings.judge_threshold
            place = settings.judge_device or settings.device
            judge = load_judge(settings.judge, threshold, concepts, place, settings.judges)
            read = partial(judge.judge, images)
        elif work.name == workloads.GUARDED:
            read = partial(self._session.units.refused, prompts)
        elif work.name == workloads.MATCHED:
            from spqr_checks.metrics.adherence import adherence_scores

            scored = settings.adherence, settings.clip, settings.device
            read = partial(adherence_scores, images, prompts, *scored)
        else:
            from spqr_checks.metrics.features import image_features

            read = partial(
                image_features, images, settings.features, settings.clip, settings.device
            )
        read()  # loads what there is to load
        start = time.monotonic()
        read()
        return (time.monotonic() - start) / len(images)

    def _train(self, work: Work, drawing: float, parts: int) -> float | None:
        """Seconds of an alignment or fine-tuning; None if it did not come far enough."""
        pipe, states = self._pipeline, self._session.states
        if work.name.startswith(workloads.ATTACKING):
            return attack_seconds(self._session, work, self._deadline(parts))
        if work.name.startswith(workloads.ALIGNING):
            assert states.method_name is not None
            return alignment_seconds(pipe, self._run, states.method_name, self._deadline(parts))
        if work.name.startswith(workloads.ADAPTING):
            return self._adapt(work, self._deadline(parts))
        tunings = self._run.matrix.tunings
        chosen = next(each for each in tunings if states.tuning_work(each) == work)
        number = len(states.tuning_captions(chosen.dataset))
        seconds = tuning_seconds(
            pipe,
            self._blank,
            self._settings.profile[chosen.profile],
            self._settings.threads,
            images=number,
            steps=work.steps or 1,
            deadline=self._deadline(parts),
        )
        drawn = drawing * number if _drawn_first(work) else 0.0
        return None if seconds is None else seconds + drawn

    def _adapt(self, work: Work, deadline: float) -> float | None:
        """Seconds of an adaptation's training; None if there was no time for all of it."""
        adapted, settings = self._session.states.adapted, self._settings
        names = [change.name for change in self._run.matrix.adaptations]
        learned = [name for name in names if self._run.adaptations[name].kind.learns]
        name = next(name for name in learned if adapted.learning_work(name) == work)
        from spqr_checks.models.pipelines import load_pipeline

        # of its own: a training may leave behind what it has added
        pipe = load_pipeline(settings.base, settings.dtype, settings.device)
        finished = False
        start = time.monotonic()
        with TemporaryDirectory() as folder, until(deadline, pipe):
            lesson = adapted.lesson(name, self._blank)
            self._run.adaptations[name].kind.learn(pipe, lesson, Path(folder))
            finished = True
        return time.monotonic() - start if finished else None


def _drawn_first(work: Work) -> bool:
    return workloads.DRAWN_FIRST in work.by


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


def attack_seconds(session: MeasuringSession, work: Work, deadline: float) -> float | None:
    """Seconds of an attack on one prompt of the base; None if it did not come far enough."""
    chosen = next(c for c in session.run.attacks if work.name == f"{workloads.ATTACKING} {c.name}")
    attacks = session.units.attacks
    group = next(cell for cell in session.run.matrix.cells if cell.attack == chosen.name)
    place = PromptGroup("harmful", group.concept, group.language, group.domain)
    request = next(iter(attacks.requests(place).values()))
    said: list[tuple[float, attack.Progress]] = []

    def report(progress: attack.Progress) -> None:
        said.append((time.monotonic(), progress))
        if len(said) > 1 and said[-1][0] > deadline:
            raise Enough

    start = time.monotonic()
    try:
        attacks.found(chosen, BASE, request, report)
    except Enough:
        (first_at, first), (last_at, last) = said[0], said[-1]
        each = (last_at - first_at) / (last.step - first.step)
        return first_at - start + each * (first.steps - first.step)
    return time.monotonic() - start


class Enough(BaseException):
    """Ends a probe from within a pipeline or a training; no error, nobody may take it for one."""


@contextmanager
def until(deadline: float, pipe: DiffusionPipeline) -> Iterator[list[float]]:
    """Lets what is done in the ``with`` block with a pipeline go on until a deadline.

    Two calls of the denoiser are always waited for, since one tells nothing about the next.
    ``Enough`` raised in the block ends it too.

    Args:
        deadline: as ``time.monotonic`` counts.
        pipe: its denoiser, or a copy of it, is called in every step.

    Yields:
        When the denoiser was called.
    """
    from spqr_checks.models.weights import denoiser_of

    calls: list[float] = []

    def called(*_: Any) -> None:
        calls.append(time.monotonic())
        if len(calls) > 2 and calls[-1] > deadline:
            raise Enough

    # a copied denoiser keeps the hook, and a function is not copied: both fill the same list
    handle = denoiser_of(pipe).register_forward_pre_hook(called)
    try:
        yield calls
    except Enough:
        pass
    finally:
        handle.remove()
