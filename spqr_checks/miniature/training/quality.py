"""Measured quality of a trained miniature: what its training record states.

Generated images are read by the miniature's classifier, whose own error on rendered images is
measured first, against the renderer's truth.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers import CLIPModel, PreTrainedTokenizerFast, ResNetForImageClassification

from spqr_checks.miniature.captions import full_caption
from spqr_checks.miniature.renderer import render
from spqr_checks.miniature.scene import any_scene, concept_scene
from spqr_checks.miniature.training import classifier, pipeline
from spqr_checks.miniature.training.stage import Pool
from spqr_checks.miniature.training.text import clip_processor, tokens
from spqr_checks.miniature.vocabulary import (
    BASE_STYLES,
    CONCEPTS,
    LABELS,
    LANGUAGES,
    STYLES,
    Concept,
    label,
)
from spqr_checks.statistics.intervals import wilson

STEPS, GUIDANCE = 8, 3.0
Rate = dict[str, float | int | list[float]]


def rate(hits: int, n: int) -> Rate:
    """A proportion with its 95 % Wilson interval and n."""
    low, high = wilson(hits, n)
    return {"rate": round(hits / n, 4), "interval": [round(low, 4), round(high, 4)], "n": n}


def _shows(concept: Concept, name: str) -> bool:
    colour, _, shape = name.partition(" ")
    return concept.shown_by(shape, colour)


@torch.inference_mode()
def read_labels(model: ResNetForImageClassification, images: Sequence[Image.Image]) -> list[str]:
    """The classifier's label of each image."""
    processor = classifier.image_processor()
    names: list[str] = []
    for start in range(0, len(images), 128):
        pixels = processor(list(images[start : start + 128]), return_tensors="pt").pixel_values
        names += [LABELS[i] for i in model(pixels).logits.argmax(1).tolist()]
    return names


def classifier_quality(model: ResNetForImageClassification, n: int = 4000) -> dict[str, Any]:
    """Sensitivity and specificity per concept on rendered images of every coloured style."""
    rng = random.Random("classifier quality")
    styles = [style for style in STYLES if style != "scan"]
    scenes = [any_scene(rng, styles) for _ in range(n)]
    per_concept = n // 16
    scenes += [concept_scene(rng, c, styles) for c in CONCEPTS for _ in range(per_concept)]
    names = read_labels(model, [Image.fromarray(render(scene, rng)) for scene in scenes])
    concepts: dict[str, Any] = {}
    for concept in CONCEPTS:
        truth = [scene.concept == concept for scene in scenes]
        seen = [_shows(concept, name) for name in names]
        pairs = list(zip(seen, truth, strict=True))
        concepts[concept.name] = {
            "sensitivity": rate(pairs.count((True, True)), sum(truth)),
            "specificity": rate(pairs.count((False, False)), len(truth) - sum(truth)),
        }
    right = sum(name == label(s.shape, s.colour) for name, s in zip(names, scenes, strict=True))
    return {"label right": rate(right, len(scenes)), "concepts": concepts}


def draw(pipe: DiffusionPipeline, prompts: list[str], seed: int) -> list[Image.Image]:
    """Images by 8 steps with guidance 3, as the record says."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), 64):
        generator = torch.Generator().manual_seed(seed + start)
        images += pipe(
            prompts[start : start + 64],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=generator,
        ).images
    return images


def pipeline_quality(
    pipe: DiffusionPipeline, model: ResNetForImageClassification, n: int = 500
) -> dict[str, Any]:
    """Right shape and colour on any scene, and suppressed concepts drawn on request."""
    report: dict[str, Any] = {}
    for number, language in enumerate(LANGUAGES):
        rng = random.Random(f"pipeline quality/{language}")
        scenes = [any_scene(rng) for _ in range(n)]
        images = draw(pipe, [full_caption(s, language) for s in scenes], 10_000 * number)
        pairs = list(zip(read_labels(model, images), scenes, strict=True))
        shape = sum(name.partition(" ")[2] == s.shape for name, s in pairs)
        both = sum(name == label(s.shape, s.colour) for name, s in pairs)
        each = n // 8
        scenes = [concept_scene(rng, c) for c in CONCEPTS for _ in range(each)]
        images = draw(pipe, [full_caption(s, language) for s in scenes], 10_000 * number + 5_000)
        names = read_labels(model, images)
        shown = {
            concept.name: sum(_shows(concept, name) for name in names[k * each : (k + 1) * each])
            for k, concept in enumerate(CONCEPTS)
        }
        report[language] = {
            "right shape": rate(shape, n),
            "right shape and colour": rate(both, n),
            "suppressed concept drawn": rate(sum(shown.values()), len(names)),
            "per concept": {name: rate(hits, each) for name, hits in shown.items()},
        }
    return report


@torch.inference_mode()
def clip_quality(
    model: CLIPModel, tokenizer: PreTrainedTokenizerFast, n: int = 512
) -> dict[str, Any]:
    """How often an image's own caption is nearer than the same with another shape or colour."""
    processor = clip_processor()
    report: dict[str, Any] = {}
    for language in LANGUAGES:
        rng = random.Random(f"clip quality/{language}")
        scenes = [any_scene(rng, BASE_STYLES) for _ in range(n)]
        images = [Image.fromarray(render(scene, rng)) for scene in scenes]
        pixels = processor(images, return_tensors="pt").pixel_values
        seen = model.visual_projection(model.vision_model(pixels).pooler_output)
        texts = []
        for scene in scenes:
            other = any_scene(rng, (scene.style,))
            wrong = (replace(scene, shape=other.shape), replace(scene, colour=other.colour))
            texts += [full_caption(s, language) for s in (scene, *wrong)]
        pooled = model.text_model(tokens(tokenizer, texts)).pooler_output
        text = torch.nn.functional.normalize(model.text_projection(pooled), dim=-1)
        image = torch.nn.functional.normalize(seen, dim=-1).unsqueeze(1)
        similarity = (image * text.reshape(n, 3, -1)).sum(-1)
        nearest = similarity[:, 0] >= similarity.max(1).values - 1e-6
        report[language] = {
            "own caption nearest of three": rate(int(nearest.sum()), n),
            "mean cosine": round(float(np.mean(similarity[:, 0].tolist())), 4),
        }
    return report


def measure(out: Path, seed: int = 0) -> dict[str, Any]:
    """Quality of the weights below ``out``, loaded as a user would load them."""
    pipe = DiffusionPipeline.from_pretrained(out / "pipeline", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    model = ResNetForImageClassification.from_pretrained(
        out / "classifier", dtype=torch.float32
    ).eval()
    contrastive = CLIPModel.from_pretrained(out / "clip", dtype=torch.float32).eval()
    held_out = Pool.rendered(1000, seed + 1, STYLES)
    return {
        "sampling": {"steps": STEPS, "guidance": GUIDANCE},
        "autoencoder psnr": round(pipeline.psnr(pipe.vae, held_out), 2),
        "classifier": classifier_quality(model),
        "clip": clip_quality(contrastive, pipe.tokenizer),
        "pipeline": pipeline_quality(pipe, model),
    }
