"""SigLIP as the model behind the cosine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_networks import spread
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

from spqr_checks.errors import UserError
from spqr_checks.metrics.adherence import adherence_scores
from spqr_checks.metrics.clip import load_clip
from spqr_checks.metrics.features import image_features
from spqr_checks.miniature.tokenizer import train_tokenizer

PROMPTS = ["a red circle", "a small blue star", "a tree", "a green house", "a ring"]


@pytest.fixture(scope="module")
def siglip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(0, captions=200)
    tokenizer.model_input_names = ["input_ids"]
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 12, "projection_size": 16}
    config = SiglipConfig(
        text_config=small | text, vision_config=small | {"image_size": 16, "patch_size": 8}
    )
    folder = tmp_path_factory.mktemp("siglip")
    model = SiglipModel(config)
    spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def test_it_is_the_cosine_behind_siglips_logit(
    siglip_dir: Path, pictures: list[Image.Image]
) -> None:
    model = SiglipModel.from_pretrained(siglip_dir)
    clip = load_clip(str(siglip_dir), kinds=("siglip",))
    tokens = clip.tokenizer(PROMPTS, padding="max_length", max_length=12, return_tensors="pt")
    pixels = clip.processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(input_ids=tokens["input_ids"], pixel_values=pixels).logits_per_image
        expected = (logits.diagonal() - model.logit_bias) / model.logit_scale.exp()
    found = adherence_scores(pictures, PROMPTS, f"clip={siglip_dir}", "")
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(set(found)) == 5


def test_nothing_else_takes_it_for_a_clip(siglip_dir: Path, pictures: list[Image.Image]) -> None:
    with pytest.raises(UserError, match="a siglip model; a CLIP model"):
        load_clip(str(siglip_dir))
    with pytest.raises(UserError, match="a siglip model; a CLIP model"):
        image_features(pictures, "clip", str(siglip_dir))
