"""Image features as numpy rows: CLIP's embeddings and any vision backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.metrics.features import FEATURE_KINDS, FeaturesKind, image_features

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


class TestClip:
    def test_rows_are_unit_norm_in_double_precision(
        self, clip_dir: Path, pictures: list[Image.Image]
    ) -> None:
        rows = image_features(pictures, "clip", str(clip_dir))
        assert rows.shape == (5, 8)
        assert rows.dtype == np.float64
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        assert len(np.unique(rows.round(4), axis=0)) == 5

    def test_they_repeat_to_the_bit(self, clip_dir: Path, pictures: list[Image.Image]) -> None:
        once = image_features(pictures, "clip", str(clip_dir))
        assert np.array_equal(once, image_features(pictures, f"clip={clip_dir}", ""))


def saved(model: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    model.eval().save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def class_token(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).last_hidden_state[:, 0]


def pooled(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).pooler_output


def tiny(name: str) -> Any:
    swin = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1], "num_heads": [2]}
    makers = {
        "dinov2": lambda: Dinov2Model(Dinov2Config(**SMALL)),
        "vit": lambda: ViTModel(ViTConfig(**SMALL)),
        "vit without its pooling layer": lambda: ViTModel(
            ViTConfig(**SMALL), add_pooling_layer=False
        ),
        "swin": lambda: SwinModel(SwinConfig(window_size=2, **swin)),
        "convnext": lambda: ConvNextModel(
            ConvNextConfig(hidden_sizes=[4, 8, 8, 8], depths=[1] * 4, patch_size=2)
        ),
    }
    return makers[name]()


class TestBackbones:
    @pytest.mark.parametrize(
        ("name", "summary"),
        [
            ("dinov2", class_token),
            ("vit", pooled),
            ("vit without its pooling layer", class_token),
            ("swin", pooled),
            ("convnext", pooled),
        ],
    )
    @torch.no_grad()
    def test_it_is_what_the_network_says_of_the_whole_image(
        self, name: str, summary: Any, tmp_path: Path, pictures: list[Image.Image]
    ) -> None:
        model = tiny(name)
        folder = saved(model, tmp_path)
        pixels = ViTImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt")
        expected = summary(model, pixels["pixel_values"])
        rows = image_features(pictures, f"vit={folder}", "")
        np.testing.assert_allclose(rows, expected.numpy(), atol=1e-5)
        assert rows.shape == (5, expected.shape[1])
        assert len(np.unique(rows.round(4), axis=0)) == 5

    @torch.no_grad()
    def test_a_classifier_is_taken_without_its_head(
        self, tmp_path: Path, pictures: list[Image.Image]
    ) -> None:
        model = ViTForImageClassification(ViTConfig(num_labels=3, **SMALL))
        folder = saved(model, tmp_path)
        pixels = ViTImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt")
        rows = image_features(pictures, f"vit={folder}", "")
        expected = class_token(model.vit, pixels["pixel_values"]).numpy()
        np.testing.assert_allclose(rows, expected, atol=1e-5)

    def test_a_network_that_masks_at_random_is_an_error(
        self, tmp_path: Path, pictures: list[Image.Image]
    ) -> None:
        small = SMALL | {"image_size": 16, "patch_size": 4}
        folder = saved(ViTMAEModel(ViTMAEConfig(**small)), tmp_path)
        with pytest.raises(JudgeError, match="other features each time"):
            image_features(pictures, f"vit={folder}", "")

    def test_weights_that_do_not_fit_are_refused(
        self, tmp_path: Path, pictures: list[Image.Image]
    ) -> None:
        folder = saved(tiny("dinov2"), tmp_path)
        config = folder / "config.json"
        text = config.read_text()
        config.write_text(text.replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
        assert config.read_text() != text
        with pytest.raises(UserError, match="missing keys"):
            image_features(pictures, f"vit={folder}", "")

    def test_a_whole_clip_is_no_backbone(self, clip_dir: Path, pictures: list[Image.Image]) -> None:
        with pytest.raises(UserError, match="a clip model; a vision backbone is needed"):
            image_features(pictures, f"vit={clip_dir}", "")


class Fake:
    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def features(self, images: Any) -> np.ndarray:
        return self.rows


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (np.zeros((4, 3)), r"shape \(4, 3\) for 5 images"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((5, 0)), r"shape \(5, 0\)"),
        (np.full((5, 3), np.nan), "NaN"),
    ],
)
def test_no_features_are_an_error(
    rows: np.ndarray,
    what: str,
    clip_dir: Path,
    pictures: list[Image.Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = FeaturesKind(lambda *_: Fake(rows))
    monkeypatch.setattr(FEATURE_KINDS, "get", lambda name: kind)
    FEATURE_KINDS.model.cache_clear()
    try:
        with pytest.raises(JudgeError, match=what):
            image_features(pictures, "clip", str(clip_dir))
    finally:
        FEATURE_KINDS.model.cache_clear()


def test_unknown_features_are_named_with_the_known() -> None:
    with pytest.raises(UserError, match="unknown features 'inception'; there are: clip, vit"):
        image_features([], "inception", "x")
