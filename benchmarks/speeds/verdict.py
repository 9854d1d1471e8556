"""The whole verdict: ours, cold, beside the loop that everybody writes.

The reference draws a fixed number of images for every cell, one prompt a call, looks at them one
image a call, and fine-tunes as diffusers' example does, which encodes images and captions at every
step. Its number of images is fixed at equal error: as many as let a cell at half its threshold pass
as often as it passes here, where images are drawn until it is decided. It makes the same alignment,
in the same seconds. Its parts are timed one by one, with torch on as many threads as ours has
processes, and multiplied by how often the matrix needs them; so it need not be waited for.

What follows the part's own options is handed to ``spqr run``; without any it is the demo.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binom

from speeds import cold, tuning
from speeds.rows import Row
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.judges import registry as judges
from spqr_checks.matrix import BASE, Draw
from spqr_checks.metrics.adherence import adherence_scores
from spqr_checks.metrics.features import image_features
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings
from spqr_checks.statistics.evidence import betting_rate, rate

_RUNS = 400
_MOST = 2_000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", type=int, default=2, help="our workers, and the reference's threads")
    parser.add_argument("--calls", type=int, default=8, help="of each part of the reference")
    parser.add_argument("words", nargs="*", help="of spqr run, after --; default: the demo")


def measure(options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done = cold.run(folder, [*options.words, f"-n{options.n}"])
        settings = cold.settings_of(folder, options.words)
        torch.set_num_threads(options.n)
        session = MeasuringSession(Run.from_settings(settings))
        parts = reference(session, done, options.calls)
    aligned = sum(t.seconds for t in done.made if t.name.startswith("alignment"))
    total = aligned + sum(parts.values())
    what = f"verdict on {len(done.card['cells'])} cells, cold, -n {options.n}"
    rows = [Row(what, "s", done.seconds, total, done.seconds / total, "≤ 0.2")]
    ours = done.seconds - aligned
    bare = total - aligned
    rows.append(Row(f"{what}, without the alignment", "s", ours, bare, ours / bare))
    drawn = sum(t.images or 0 for t in done.made if t.name == "images")
    rows.append(Row("images drawn", "", drawn, counted(session), drawn / counted(session)))
    rows += [Row(f"of the reference: {part}", "s", seconds) for part, seconds in parts.items()]
    return rows


def counted(session: MeasuringSession) -> int:
    """Images of the reference."""
    return sum(images_of(draw, session) for draw in draws(session))


def draws(session: MeasuringSession) -> list[Draw]:
    """What the matrix looks at first, each draw once however many cells share it."""
    matrix = session.run.matrix
    return list(dict.fromkeys(draw for cell in matrix.cells for draw in matrix.draws(cell)))


def images_of(draw: Draw, session: MeasuringSession) -> int:
    """Of safety cells the fixed number; of others no more than we draw at first."""
    settings = session.run.settings
    if draw.group.kind != "harmful":
        return draw.n
    thresholds = settings.thresholds
    limit = thresholds.unsafe if draw.state.tuning is None else thresholds.unsafe_tuned
    return fixed_number(limit, settings.level, settings.images, settings.max_images)


@cache
def fixed_number(threshold: float, level: float, look: int, most: int) -> int:
    """Fewest images with which a cell at half the threshold passes as often as in looks.

    Both designs call a cell at the threshold passed in at most 1 - ``level`` of runs.
    """
    true, alpha = threshold / 2, 1 - level
    rng = np.random.default_rng(0)

    def passes() -> bool:
        flags = rng.random(most) < true
        for n in range(look, most + 1, look):
            verdict = betting_rate(int(flags[:n].sum()), n, threshold, level).verdict(alpha)
            if verdict != "inconclusive":
                return verdict == "pass"
        return False

    power = sum(passes() for _ in range(_RUNS)) / _RUNS
    for n in range(look, _MOST):
        met = [k for k in range(n + 1) if rate(k, n, threshold, level).p_met <= alpha]
        if met and binom.cdf(max(met), n, true) >= power:
            return n
    raise ValueError(f"{_MOST} images are too few")


def reference(session: MeasuringSession, done: cold.Finished, calls: int) -> dict[str, float]:
    """Seconds of each part, were it done so often as the matrix asks for."""
    settings = session.run.settings
    by_kind: dict[str, int] = {}
    for draw in draws(session):
        kind = draw.group.kind
        by_kind[kind] = by_kind.get(kind, 0) + images_of(draw, session)
    # as the session: what any state draws takes as long
    pipe, sampler = session.states.pipeline(BASE), settings.sampler
    prompts = [p.text for p in session.run.prompts.prompts[:calls]]
    drawn: list[object] = []

    def draw_one(i: int) -> None:
        given = {"num_inference_steps": sampler.steps, "guidance_scale": sampler.guidance}
        generator = torch.Generator().manual_seed(i)
        with torch.no_grad():
            drawn.append(pipe(prompts[i % len(prompts)], generator=generator, **given).images[0])

    each = _each(draw_one, calls)
    judge = judges.load_judge(
        settings.judge, settings.judge_threshold, session.run.policy.concepts,
        settings.judge_device or settings.device, settings.judges,
    )  # fmt: skip
    judged = _each(lambda i: judge.judge([drawn[i]]), calls)
    by = settings.clip, settings.device
    scored = _each(
        lambda i: adherence_scores([drawn[i]], [prompts[0]], settings.adherence, *by), calls
    )
    featured = _each(lambda i: image_features([drawn[i]], settings.features, *by), calls)
    safety = by_kind.get("harmful", 0) + by_kind.get("lookalike", 0)
    useful = sum(n for kind, n in by_kind.items() if kind != "harmful")
    looked_at = settings.images_reference + sum(by_kind.get(k, 0) for k in ("benign", "tuning"))
    return {
        "drawing": each * sum(by_kind.values()),
        "judging": judged * safety,
        "adherence": scored * useful,
        "features": featured * looked_at,
        "fine-tuning": _tunings(session, done, settings, calls),
    }


def _tunings(session: MeasuringSession, done: cold.Finished, settings: Settings, n: int) -> float:
    """Seconds of all fine-tunings that were made, step by step as in diffusers' example."""
    total = 0.0
    for name, profile in settings.profile.items():
        steps = sum(t.steps or 0 for t in done.made if t.name == f"fine-tuning {name}")
        if steps:
            data = session.states.data(settings.datasets[0], profile.images_per_step)
            pipe = session.states.pipeline(BASE)
            short = profile.model_copy(update={"steps": max(3, n // 2)})
            total += steps * tuning.example_step(pipe, data, short).clock
    return total


def _each(call: Callable[[int], object], n: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    call(0)
    seconds = []
    for i in range(n):
        start = time.perf_counter()
        call(i)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
