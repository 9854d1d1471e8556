"""Images and fine-tuning steps per second, and peak memory, beside plain diffusers'.

Ours and the plain ways take turns on one pipeline with random weights of a published size, or on
the miniature. Memory is reported only where the device counts it. Fine-tuning stands beside
two loops: one that encodes its data once as ours does, and the arithmetic of diffusers' example
``train_text_to_image_lora.py``, which encodes images and captions at every step.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from sized_pipelines import SIDES, SIZES, pipeline

from speeds import tuning
from speeds.rows import Row
from spqr_checks.choices import Sampler
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.generation.sampling import generate
from spqr_checks.settings import Settings

_PROMPT = "a photo of a red circle on a big house"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", action="append", choices=sorted(SIZES), required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--side", type=int, help="of the images in pixels, if not the model's own")
    parser.add_argument("--compile", action="store_true", help="also with compiled networks")
    parser.add_argument("--tuning-batch", type=int, default=16)
    parser.add_argument("--tuning-steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)


def measure(options: argparse.Namespace) -> list[Row]:
    if min(options.images, options.batch, options.steps, options.repeats) < 1:
        sys.exit("--images, --batch, --steps and --repeats must be at least 1")
    if options.tuning_steps < 3:
        sys.exit("--tuning-steps must be at least 3: the first ones warm up")
    rows = []
    for name in dict.fromkeys(name for size in options.size for name in SIZES[size]):
        pipe = pipeline(name, options.device, options.dtype)
        side = options.side or SIDES[name]
        rows += [*_drawing(name, pipe, side, options), *_tuning(name, pipe, side, options)]
        del pipe
        gc.collect()
    return rows


def _drawing(name: str, pipe: Any, side: int, options: argparse.Namespace) -> list[Row]:
    n = options.images
    prompts = [f"{_PROMPT} {i}" for i in range(n)]
    sampler = Sampler(
        steps=options.steps, guidance=7.5, height=side, width=side, batch=options.batch
    )

    def ours(compiled: bool) -> int:
        asked = sampler.model_copy(update={"compile": compiled})
        return len(generate(pipe, prompts, list(range(n)), asked))

    def plain() -> int:
        drawn = 0
        for start in range(0, n, options.batch):
            part = prompts[start : start + options.batch]
            generator = torch.Generator(options.device).manual_seed(start)
            size = {"height": side, "width": side}
            given = {"num_inference_steps": options.steps, "guidance_scale": 7.5} | size
            drawn += len(pipe(part, generator=generator, **given).images)
        return drawn

    ways: dict[str, Callable[[], int]] = {"ours": partial(ours, False), "plain": plain}
    if options.compile:
        ways["compiled"] = partial(ours, True)
    for warm_up in ways.values():
        warm_up()
    times, peaks = _in_turn(ways, options, expected=n)
    rows = []
    for way, goal in {"ours": "≥ 1", "compiled": "≥ 1.3"}.items():
        if way in ways:
            figures = n / times[way], n / times["plain"], times["plain"] / times[way]
            what = f"{name}: images, {way}, beside batched diffusers"
            rows.append(
                Row(what, "1/s", *figures, goal if _is_gpu(options) else "", options.repeats)
            )
            rows += _memory(f"{name}: drawing, {way}", peaks[way], peaks["plain"])
    return rows


def _tuning(name: str, pipe: Any, side: int, options: argparse.Namespace) -> list[Row]:
    """Steps of the profile `lite`; what is encoded once counts by its share of each step."""
    images = [
        Image.new("RGB", (side, side), (40 * i % 255, 90, 120)) for i in range(options.tuning_batch)
    ]
    data = CaptionedImages(images, [f"{_PROMPT} {i}" for i in range(len(images))])
    lite = Settings().profile["lite"]
    given = {"steps": options.tuning_steps, "batch": len(images), "resolution": side}
    profile = lite.model_copy(update=given)
    # each returns the seconds of one step, or of the encoding before the first
    ways = {
        "ours": tuning.our_step,
        "plain": tuning.plain_step,
        "example": tuning.example_step,
        "encoding": tuning.encoding,
    }
    seconds: dict[str, list[float]] = {key: [] for key in ways}
    peaks: dict[str, float | None] = {}
    for _ in range(options.repeats):
        for key, way in ways.items():
            _forget(options.device)
            seconds[key].append(way(pipe, data, profile).clock)
            peaks[key] = _peak(options.device)
    took = {key: statistics.median(values) for key, values in seconds.items()}
    # a step's images are encoded once for all the passes over the data
    once = took["ours"] + took["encoding"] / lite.epochs
    n, what = options.repeats, f"{name}: lite steps, batch {len(images)}, beside"
    return [
        Row(
            f"{what} encoding once",
            "1/s",
            1 / took["ours"],
            1 / took["plain"],
            took["plain"] / took["ours"],
            "",
            n,
        ),
        Row(
            f"{what} diffusers' example",
            "1/s",
            1 / once,
            1 / took["example"],
            took["example"] / once,
            "≥ 1.5",
            n,
        ),
        *_memory(f"{name}: lite steps", peaks["ours"], peaks["example"]),
    ]


def _memory(what: str, ours: float | None, beside: float | None) -> list[Row]:
    """No row where the device does not count."""
    if ours is None or beside is None:
        return []
    return [Row(f"{what}: peak memory", "GiB", ours, beside, ours / beside)]


def _in_turn(
    ways: dict[str, Callable[[], int]], options: argparse.Namespace, expected: int
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Median seconds and peak memory of each, which must do all that is expected."""
    seconds: dict[str, list[float]] = {key: [] for key in ways}
    peaks: dict[str, float | None] = {}
    for _ in range(options.repeats):
        for key, way in ways.items():
            _forget(options.device)
            start = time.perf_counter()
            done = way()
            if options.device.startswith("cuda"):
                torch.cuda.synchronize()
            seconds[key].append(time.perf_counter() - start)
            if done != expected:
                sys.exit(f"{key}: {done} of {expected} images were drawn; nothing is reported")
            peaks[key] = _peak(options.device)
    return {key: statistics.median(values) for key, values in seconds.items()}, peaks


def _forget(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float | None:
    """GiB; None where the device does not count."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None


def _is_gpu(options: argparse.Namespace) -> bool:
    return str(options.device).startswith("cuda")
