"""Trains the whole embedded world from nothing: `spqr miniature train --seed 0 --out DIR`.

Every stage seeds itself and leaves its result in the output folder, so an interrupted training
continues with the first unfinished stage and ends in the same weights.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPModel,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    ResNetForImageClassification,
)

from spqr_checks.miniature import networks
from spqr_checks.miniature.tokenizer import train_tokenizer
from spqr_checks.miniature.training import autoencoder, classifier, clip, denoiser, text
from spqr_checks.miniature.training.pool import Pool
from spqr_checks.miniature.vocabulary import BASE_STYLES, STYLES

THREADS = 2
Model = TypeVar("Model")


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

    def run(
        self, name: str, make: Callable[[], Model], save: Callable[[Model, Path], None]
    ) -> Path:
        target = self.folder / name
        clock = target / "seconds.json"
        if not clock.exists():
            start = time.monotonic()
            model = make()
            save(model, target)
            clock.write_text(json.dumps(round(time.monotonic() - start, 1)))
        self.seconds[name] = json.loads(clock.read_text())
        return target


def _stage_seed(seed: int, stage: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{stage}".encode()).digest()[:4], "big")


def _save_model(model: Any, target: Path) -> None:
    model.save_pretrained(target)


def train_all(out: Path, seed: int = 0, budget: Budget | None = None) -> dict[str, object]:
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
        return _stage_seed(seed, stage)

    tokenizer = PreTrainedTokenizerFast.from_pretrained(
        stages.run(
            "tokenizer",
            lambda: train_tokenizer(seed_of("tokenizer")),
            lambda model, target: model.save_pretrained(target) and None,
        )
    )
    warmed = stages.run(
        "text", lambda: text.warm_up(tokenizer, seed_of("text"), budget.text), _save_model
    )
    everything = Pool.rendered(budget.images_all_styles, seed_of("all styles"), STYLES)
    vae_dir = stages.run(
        "autoencoder",
        lambda: autoencoder.train(everything, seed_of("autoencoder"), budget.autoencoder),
        _save_model,
    )
    vae = AutoencoderKL.from_pretrained(vae_dir)
    classifier_dir = stages.run(
        "classifier",
        lambda: classifier.train(everything, vae, seed_of("classifier"), budget.classifier),
        _save_model,
    )
    clip_dir = stages.run(
        "clip",
        lambda: clip.train(
            everything,
            tokenizer,
            CLIPTextModel.from_pretrained(warmed),
            seed_of("clip"),
            budget.clip,
        ),
        _save_model,
    )

    def make_denoiser() -> tuple[UNet2DConditionModel, CLIPTextModel]:
        pool = Pool.rendered(budget.images, seed_of("base styles"), BASE_STYLES)
        encoder = CLIPTextModel.from_pretrained(warmed)
        unet = denoiser.train(
            autoencoder.encode(vae, pool),
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
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel.from_pretrained(trained / "text_encoder"),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=networks.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(out / "pipeline")
    CLIPModel.from_pretrained(clip_dir).half().save_pretrained(out / "clip")
    clip.image_processor().save_pretrained(out / "clip")
    tokenizer.save_pretrained(out / "clip")
    judge = ResNetForImageClassification.from_pretrained(classifier_dir)
    judge.half().save_pretrained(out / "classifier")
    classifier.image_processor().save_pretrained(out / "classifier")
    return {
        "seed": seed,
        "steps": asdict(budget),
        "seconds": stages.seconds,
        "threads": THREADS,
        "compiled": denoiser.can_compile(),
        "machine": platform.machine(),
        "versions": {
            name: version(name)
            for name in ("torch", "diffusers", "transformers", "tokenizers", "numpy", "pillow")
        },
    }
