"""The embedded world from nothing: `spqr miniature train --seed 0 --out DIR`.

Every stage seeds itself and leaves its result in the output folder, so an interrupted training
continues with the first unfinished stage and ends in the same weights.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPModel,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    ResNetForImageClassification,
)

from spqr_checks.errors import UserError
from spqr_checks.miniature import networks
from spqr_checks.miniature.tokenizer import train_tokenizer
from spqr_checks.miniature.training import classifier, pipeline, quality, text
from spqr_checks.miniature.training.stage import Pool
from spqr_checks.miniature.vocabulary import BASE_STYLES, STYLES

THREADS = 2
RECORD = "record.json"
Save = Callable[[Any, Path], None]


@dataclass(frozen=True)
class Budget:
    """Optimiser steps of each stage and the number of rendered training images."""

    text: int = 450
    autoencoder: int = 2400
    classifier: int = 2800
    clip: int = 900
    denoiser: int = 5000
    images: int = 24_000
    images_all_styles: int = 24_000

    def scaled(self, factor: float) -> Budget:
        """The same proportions with fewer or more steps and images."""
        return Budget(**{name: max(2, round(n * factor)) for name, n in asdict(self).items()})


class _Stages:
    """Runs each stage once; a finished stage is loaded from its folder instead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def run(self, name: str, make: Callable[[], Any], save: Save | None = None) -> Path:
        target = self.folder / name
        clock = target / "seconds.json"
        if not clock.exists():
            start = time.monotonic()
            model = make()
            model.save_pretrained(target) if save is None else save(model, target)
            clock.write_text(json.dumps(round(time.monotonic() - start, 1)))
        self.seconds[name] = json.loads(clock.read_text())
        return target


def train(out: Path, seed: int, scale: float) -> dict[str, Any]:
    """Trains, measures, and writes the record beside the weights.

    Args:
        scale: factor on the steps of every stage; 1.0 is what the shipped weights were made with.

    Raises:
        UserError: if ``out`` holds a finished training.
    """
    if (out / RECORD).exists():
        raise UserError(f"{out}: a finished training is already there; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    record = train_all(out, seed, Budget().scaled(scale))
    print("measuring quality", file=sys.stderr, flush=True)
    record["quality"] = quality.measure(out, seed)
    text = json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True)
    (out / RECORD).write_text(text + "\n", encoding="utf-8")
    return record


def train_all(out: Path, seed: int = 0, budget: Budget | None = None) -> dict[str, Any]:
    """Trains tokenizer, text encoder, autoencoder, classifier, CLIP and denoiser into ``out``.

    Args:
        out: folder for ``pipeline/``, ``clip/``, ``classifier/`` (half-precision safetensors)
            and ``stages/`` (full precision, only needed to continue).
        seed: decides every random choice, rendered images included.

    Returns:
        The training record, without the measured quality.
    """
    budget = budget or Budget()
    torch.set_num_threads(THREADS)
    stages = _Stages(out / "stages")

    def seed_of(stage: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed}/{stage}".encode()).digest()[:4], "big")

    tokenizer = PreTrainedTokenizerFast.from_pretrained(
        stages.run("tokenizer", lambda: train_tokenizer(seed_of("tokenizer")))
    )
    warmed = stages.run("text", lambda: text.warm_up(tokenizer, seed_of("text"), budget.text))

    def warmed_up() -> CLIPTextModel:
        return CLIPTextModel.from_pretrained(warmed)

    everything = Pool.rendered(budget.images_all_styles, seed_of("all styles"), STYLES)
    vae_dir = stages.run(
        "autoencoder",
        lambda: pipeline.train_autoencoder(everything, seed_of("autoencoder"), budget.autoencoder),
    )
    vae = AutoencoderKL.from_pretrained(vae_dir)
    classifier_dir = stages.run(
        "classifier",
        lambda: classifier.train(everything, vae, seed_of("classifier"), budget.classifier),
    )
    clip_dir = stages.run(
        "clip",
        lambda: text.train_clip(
            everything,
            tokenizer,
            CLIPTextModel.from_pretrained(warmed),
            seed_of("clip"),
            budget.clip,
        ),
    )

    def make_denoiser() -> tuple[UNet2DConditionModel, CLIPTextModel]:
        pool = Pool.rendered(budget.images, seed_of("base styles"), BASE_STYLES)
        encoder = warmed_up()
        unet = pipeline.train_denoiser(
            pipeline.encode(vae, pool),
            pool.scenes,
            tokenizer,
            encoder,
            seed=seed_of("denoiser"),
            steps=budget.denoiser,
            snapshot=stages.folder / "denoiser-snapshot.safetensors",
        )
        return unet, encoder

    def save_denoiser(model: tuple[UNet2DConditionModel, CLIPTextModel], target: Path) -> None:
        model[0].save_pretrained(target / "unet")
        model[1].save_pretrained(target / "text_encoder")

    trained = stages.run("denoiser", make_denoiser, save_denoiser)

    unet = UNet2DConditionModel.from_pretrained(trained / "unet")
    for network in (vae, unet):
        # else their configurations say in which folder the stages lay
        network.register_to_config(_name_or_path="")
    whole = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(trained / "text_encoder"),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=networks.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    whole.to(torch.float16).save_pretrained(out / "pipeline")
    CLIPModel.from_pretrained(clip_dir).half().save_pretrained(out / "clip")
    text.clip_processor().save_pretrained(out / "clip")
    tokenizer.save_pretrained(out / "clip")
    judge = ResNetForImageClassification.from_pretrained(classifier_dir)
    judge.half().save_pretrained(out / "classifier")
    classifier.image_processor().save_pretrained(out / "classifier")
    return {
        "seed": seed,
        "steps": asdict(budget),
        "seconds": stages.seconds,
        "threads": THREADS,
        "compiled": pipeline.can_compile(),
        "machine": platform.machine(),
        "versions": {
            name: version(name)
            for name in ("torch", "diffusers", "transformers", "tokenizers", "numpy", "pillow")
        },
    }
