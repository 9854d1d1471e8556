"""A step of fine-tuning beside diffusers' example script, in pairs, the same work in both.

The same images and captions, the same weights trained. The example encodes at every step; of ours
a step bears its share of encoding each image once, for a fine-tuning of the profile's own length.
Pairs take turns, and the ratio is the median of theirs, by the clock and in processor time; which
goes first changes from pair to pair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sized_pipelines import SIDES, pipeline

from speeds import tuning
from speeds.rows import Row
from speeds.tuning import Took
from spqr_checks.checks.session import MeasuringSession
from spqr_checks.choices import Profile
from spqr_checks.finetuning.captioned import CaptionedImages
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings, load_settings

_PROMPT = "a photo of a red circle on a big house"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", action="append", choices=("miniature", "sd15-quarter", "sd15"))
    parser.add_argument("--profile", action="append", choices=("lite", "standard"))
    parser.add_argument("--batch", type=int, default=4, help="of Stable Diffusion 1.5")
    parser.add_argument("--steps", type=int, default=6, help="of each half of a pair")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch")


def measure(options: argparse.Namespace) -> list[Row]:
    if options.steps < 3 or options.pairs < 1:
        sys.exit("--steps must be at least 3: the first two warm up; --pairs at least 1")
    torch.set_num_threads(options.threads)
    rows = []
    for size in options.size or ("miniature", "sd15-quarter"):
        pipe = pipeline(size, "cpu", "float32")
        for name in options.profile or ("lite", "standard"):
            data, profile, share = _work(size, name, options.batch)
            short = profile.model_copy(update={"steps": options.steps})
            rows += _rows(f"{size}: {name} step", _pairs(pipe, data, short, share, options.pairs))
    return rows


def _work(size: str, name: str, batch: int) -> tuple[CaptionedImages, Profile, float]:
    """Images of one step, the profile, and how often a step bears encoding as many as it has."""
    if size == "miniature":
        settings = load_settings(Path(__file__).parents[1], {})
        profile = settings.profile[name]
        states = MeasuringSession(Run.from_settings(settings)).states
        data = states.data(settings.datasets[0], profile.batch)
        of_a_run = settings.dataset_limit or 0  # the embedded sets have more
        return data, profile, of_a_run / profile.batch / (profile.steps or 1)
    side = SIDES[size]
    images = [Image.effect_noise((side, side), 40 + i).convert("RGB") for i in range(batch)]
    data = CaptionedImages(images, [f"{_PROMPT} {i}" for i in range(batch)])
    profile = Settings().profile[name]
    given = {"batch": batch, "resolution": side}
    return data, profile.model_copy(update=given), 1 / profile.epochs


def _pairs(
    pipe: Any, data: CaptionedImages, profile: Profile, share: float, pairs: int
) -> list[tuple[Took, Took]]:
    """Ours and the example's, in turn."""
    found = []

    def ours() -> Took:
        # encoded before, as in a run's other fine-tunings, and borne by the steps in its share
        encoding = tuning.encoding(pipe, data, profile)
        return tuning.our_step(pipe, data, profile) + encoding * share

    def example() -> Took:
        return tuning.example_step(pipe, data, profile)

    for i in range(pairs):
        if i % 2:
            beside, own = example(), ours()
        else:
            own, beside = ours(), example()
        found.append((own, beside))
    return found


def _rows(what: str, pairs: list[tuple[Took, Took]]) -> list[Row]:
    load = os.getloadavg()[0]
    rows = []
    for by, name in (("clock", "by the clock"), ("processor", "of a processor")):
        own, beside = (
            [getattr(took, by) for took in column] for column in zip(*pairs, strict=True)
        )
        ratios = [b / a for a, b in zip(own, beside, strict=True)]
        spread = f"ratios {min(ratios):.2f}–{max(ratios):.2f}, load {load:.1f}"
        figures = statistics.median(own), statistics.median(beside), statistics.median(ratios)
        rows.append(Row(f"{what} {name} ({spread})", "s", *figures, "≥ 1.5", len(pairs)))
    return rows
