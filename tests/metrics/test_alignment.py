"""Cosine of each image with its own prompt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from spqr_checks.metrics.alignment import prompt_alignment
from spqr_checks.metrics.clip import load_clip

PROMPTS = ["a red circle", "a blue star", "a tree", "a green house", "a ring"]


def test_it_is_the_diagonal_of_all_cosines(clip_dir: Path, pictures: list[Image.Image]) -> None:
    clip = load_clip(str(clip_dir))
    all_cosines = clip.embed_images(pictures) @ clip.embed_texts(PROMPTS).T
    found = prompt_alignment(pictures, PROMPTS, str(clip_dir))
    assert found == pytest.approx(all_cosines.diagonal().tolist(), abs=1e-6)
    assert len(set(found)) == 5


def test_it_equals_the_logits_of_clip_without_their_scale(
    clip_dir: Path, pictures: list[Image.Image]
) -> None:
    clip = load_clip(str(clip_dir))
    inputs = clip.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    pixels = clip.processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = clip.model(**inputs, pixel_values=pixels).logits_per_image.diagonal()
    found = prompt_alignment(pictures, PROMPTS, str(clip_dir))
    assert found == pytest.approx((logits / clip.logit_scale).tolist(), abs=1e-5)


def test_negative_cosines_stay_negative(
    clip_dir: Path, pictures: list[Image.Image], tmp_path: Path
) -> None:
    shutil.copytree(clip_dir, tmp_path, dirs_exist_ok=True)
    model = CLIPModel.from_pretrained(tmp_path)
    with torch.no_grad():
        model.text_projection.weight.neg_()
    model.save_pretrained(tmp_path)
    found = prompt_alignment(pictures, PROMPTS, str(clip_dir))
    assert any(found)
    opposite = prompt_alignment(pictures, PROMPTS, str(tmp_path))
    assert opposite == pytest.approx([-cosine for cosine in found], abs=1e-6)


def test_every_image_needs_a_prompt(clip_dir: Path, pictures: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match="5 images but 4 prompts"):
        prompt_alignment(pictures, PROMPTS[:4], str(clip_dir))


def test_plain_numbers_come_back(clip_dir: Path, pictures: list[Image.Image]) -> None:
    found = prompt_alignment(pictures, PROMPTS, str(clip_dir))
    assert all(type(value) is float and -1 <= value <= 1 for value in found)
