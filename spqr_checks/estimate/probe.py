"""Times a little of what no timing is known of: one small batch, a few steps. Keeps nothing.

Heavy libraries are imported when something is probed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from PIL import Image

from spqr_checks.checks.session import MeasuringSession
from spqr_checks.estimate.probe_training import alignment_seconds, tuning_seconds
from spqr_checks.estimate.stopwatch import until
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.matrix import BASE
from spqr_checks.runtime import workloads
from spqr_checks.store.timings import Timing, Work

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

BUDGET = 60.0
_IMAGES = 4
_SIDE = 512


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
        tuned = [work for work in wanted if work.name.startswith(workloads.TUNING)]
        # an alignment may prepare for long before its first step, and changes the pipeline
        trained = tuned + [work for work in wanted if work.name.startswith(workloads.ALIGNING)]
        read = [work for work in wanted if work not in trained and work.name != workloads.DRAWING]
        drawn = [work for work in wanted if work.name == workloads.DRAWING]
        drawing = 0.0
        if drawn or any(workloads.DRAWN_FIRST in work.by for work in wanted):
            drawing = self._draw(1 + len(trained))
        seconds: list[float | None] = [drawing * (work.images or 1) for work in drawn]
        for work in read:
            first = drawing if workloads.DRAWN_FIRST in work.by else 0.0
            seconds.append((self._read(work) + first) * (work.images or 1))
        for number, work in enumerate(trained):
            seconds.append(self._train(work, drawing, len(trained) - number))
        return [
            Timing(**dict(work), label="probe", seconds=took)
            for work, took in zip([*drawn, *read, *trained], seconds, strict=True)
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
        device = settings.device
        if work.name == workloads.JUDGED:
            from spqr_checks.judges.registry import load_judge

            concepts, threshold = self._run.policy.concepts, settings.judge_threshold
            place = settings.judge_device or device
            judge = load_judge(settings.judge, threshold, concepts, place, settings.judges)
            return _second_time(lambda: judge.judge(images)) / len(images)
        if work.name == workloads.MATCHED:
            from spqr_checks.metrics.adherence import adherence_scores

            spec, clip = settings.adherence, settings.clip
            took = _second_time(lambda: adherence_scores(images, prompts, spec, clip, device))
            return took / len(images)
        from spqr_checks.metrics.features import image_features

        spec, clip = settings.features, settings.clip
        return _second_time(lambda: image_features(images, spec, clip, device)) / len(images)

    def _train(self, work: Work, drawing: float, parts: int) -> float | None:
        """Seconds of an alignment or fine-tuning; None if it did not come far enough."""
        pipe, states = self._pipeline, self._session.states
        if work.name.startswith(workloads.ALIGNING):
            assert states.method_name is not None
            return alignment_seconds(pipe, self._run, states.method_name, self._deadline(parts))
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
        if seconds is None or workloads.DRAWN_FIRST not in work.by:
            return seconds
        return seconds + drawing * number


def _second_time(read: Callable[[], object]) -> float:
    """Seconds of a call that does not have to load anything first."""
    read()
    start = time.monotonic()
    read()
    return time.monotonic() - start
