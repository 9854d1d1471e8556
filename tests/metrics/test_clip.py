"""One CLIP for images and texts, loaded exactly or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.metrics.clip import load_clip


@pytest.fixture
def copied(clip_dir: Path, tmp_path: Path) -> Path:
    """A CLIP folder that a test may spoil."""
    return Path(shutil.copytree(clip_dir, tmp_path / "clip"))


def change_weights(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class TestEmbeddings:
    def test_images_are_embedded_as_the_library_does(
        self, clip_dir: Path, pictures: list[Image.Image]
    ) -> None:
        model = CLIPModel.from_pretrained(clip_dir)
        processor = CLIPImageProcessorPil.from_pretrained(clip_dir)
        with torch.no_grad():
            pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
            raw = model.visual_projection(model.vision_model(pixels).pooler_output)
        found = load_clip(str(clip_dir)).embed_images(pictures)
        torch.testing.assert_close(found, raw / raw.norm(dim=-1, keepdim=True))

    def test_texts_are_embedded_as_the_library_does(self, clip_dir: Path) -> None:
        model, tokenizer = (
            CLIPModel.from_pretrained(clip_dir),
            AutoTokenizer.from_pretrained(clip_dir),
        )
        texts = ["a red circle", "एक लाल त्रिभुज"]
        with torch.no_grad():
            raw = torch.cat(
                [
                    model.text_projection(
                        model.text_model(**tokenizer(t, return_tensors="pt")).pooler_output
                    )
                    for t in texts
                ]
            )
        found = load_clip(str(clip_dir)).embed_texts(texts)
        torch.testing.assert_close(found, raw / raw.norm(dim=-1, keepdim=True))

    def test_they_have_unit_norm_and_the_inputs_order(
        self, clip_dir: Path, pictures: list[Image.Image]
    ) -> None:
        clip = load_clip(str(clip_dir))
        embedded = clip.embed_images(pictures)
        assert embedded.shape == (5, 8)
        torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(5))
        torch.testing.assert_close(clip.embed_images(pictures[::-1]), embedded.flip(0))

    def test_many_are_embedded_in_several_batches(
        self, clip_dir: Path, pictures: list[Image.Image]
    ) -> None:
        clip = load_clip(str(clip_dir))
        torch.testing.assert_close(
            clip.embed_images(pictures * 30), clip.embed_images(pictures).repeat(30, 1)
        )
        torch.testing.assert_close(
            clip.embed_texts(["a circle", "a star"] * 50),
            clip.embed_texts(["a circle", "a star"]).repeat(50, 1),
        )

    def test_a_text_does_not_depend_on_longer_ones_beside_it(self, clip_dir: Path) -> None:
        clip = load_clip(str(clip_dir))
        texts = ["a star", "a small red circle on a white background"]
        torch.testing.assert_close(clip.embed_texts(texts)[:1], clip.embed_texts(texts[:1]))

    def test_a_long_text_is_cut_at_the_models_context(self, clip_dir: Path) -> None:
        clip = load_clip(str(clip_dir))
        # ten words and the two special tokens fill the twelve places
        ten = " ".join(["red", "circle"] * 5)
        assert torch.equal(clip.embed_texts([ten]), clip.embed_texts([ten + " blue star" * 40]))
        assert not torch.equal(clip.embed_texts([ten]), clip.embed_texts([ten[:-7] + " star"]))

    def test_grey_and_transparent_images_are_taken_as_rgb(
        self, clip_dir: Path, pictures: list[Image.Image]
    ) -> None:
        clip = load_clip(str(clip_dir))
        modes = [pictures[0].convert(mode) for mode in ("L", "RGBA", "P")]
        expected = [image.convert("RGB") for image in modes]
        assert torch.equal(clip.embed_images(modes), clip.embed_images(expected))

    def test_nothing_gives_nothing(self, clip_dir: Path) -> None:
        assert load_clip(str(clip_dir)).embed_images([]).shape == (0, 8)


class TestFailures:
    def test_nan_weights_are_an_error_when_embedding(
        self, copied: Path, pictures: list[Image.Image]
    ) -> None:
        def spoil(weights: dict[str, torch.Tensor]) -> None:
            weights["visual_projection.weight"][0, 0] = float("nan")

        change_weights(copied, spoil)
        with pytest.raises(JudgeError, match="NaN"):
            load_clip(str(copied)).embed_images(pictures)

    def test_an_embedding_of_zero_has_no_direction(self, copied: Path) -> None:
        change_weights(copied, lambda weights: weights["text_projection.weight"].zero_())
        with pytest.raises(JudgeError, match="zero"):
            load_clip(str(copied)).embed_texts(["a star"])

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (lambda w: w.pop("logit_scale"), "missing keys.*logit_scale"),
            (lambda w: w.update(extra=torch.zeros(1)), "unexpected keys.*extra"),
            (
                lambda w: w.update({"text_projection.weight": torch.zeros(9, 16)}),
                "text_projection|mismatched",
            ),
        ],
        ids=["missing", "unexpected", "mismatched"],
    )
    def test_weights_that_do_not_fit(self, copied: Path, change: Any, what: str) -> None:
        change_weights(copied, change)
        with pytest.raises(UserError, match=what):
            load_clip(str(copied))

    def test_truncated_weights(self, copied: Path) -> None:
        path = copied / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(UserError, match=str(copied)):
            load_clip(str(copied))

    def test_another_kind_of_model(self, copied: Path) -> None:
        config = json.loads((copied / "config.json").read_text())
        (copied / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
        with pytest.raises(UserError, match="a siglip model; a CLIP model"):
            load_clip(str(copied))

    @pytest.mark.parametrize(
        ("file", "what"),
        [
            ("config.json", r"config\.json"),
            ("preprocessor_config.json", "image preprocessing"),
            ("tokenizer.json", "tokenizer"),
        ],
    )
    def test_a_missing_file(self, copied: Path, file: str, what: str) -> None:
        (copied / file).unlink()
        with pytest.raises(UserError, match=what):
            load_clip(str(copied))

    def test_a_tokenizer_of_a_larger_vocabulary(self, copied: Path) -> None:
        config = json.loads((copied / "config.json").read_text())
        config["text_config"]["vocab_size"] = 300
        (copied / "config.json").write_text(json.dumps(config))
        change_weights(
            copied,
            lambda w: w.update(
                {
                    key: value[:300].clone()
                    for key, value in w.items()
                    if key.endswith("token_embedding.weight")
                }
            ),
        )
        with pytest.raises(UserError, match="the model knows 300"):
            load_clip(str(copied))


class TestCache:
    def test_a_model_is_loaded_once(self, clip_dir: Path) -> None:
        assert load_clip(str(clip_dir)) is load_clip(str(clip_dir))

    def test_a_changed_folder_is_loaded_anew(
        self, copied: Path, pictures: list[Image.Image]
    ) -> None:
        before = load_clip(str(copied)).embed_images(pictures).numpy()
        change_weights(copied, lambda weights: weights["visual_projection.weight"].mul_(-1))
        after = load_clip(str(copied)).embed_images(pictures).numpy()
        np.testing.assert_allclose(after, -before, atol=1e-6)
