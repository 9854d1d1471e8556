"""The safety checker of Stable Diffusion, with random weights, against diffusers' own answer."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.registry import judge_recipe, load_judge

CONCEPTS = ("hazard", "bolt")
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 8,
}
PREPROCESSING = {
    "crop_size": 16,
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "resample": 3,
    "size": 16,
}
"""As in the published repository, but smaller."""


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Thirty images of noise of various strengths."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 16, 16, 3)) * rng.uniform(0, 1, (30, 1, 1, 3))
    return [Image.fromarray(pixels) for pixels in noise.astype(np.uint8)]


@pytest.fixture(scope="module")
def checker_dir(tmp_path_factory: pytest.TempPathFactory, images: list[Image.Image]) -> Path:
    """Read only; thresholds at which some images are flagged and some concepts are special."""
    torch.manual_seed(0)
    config = CLIPConfig(vision_config=VISION, projection_dim=8)
    network = StableDiffusionSafetyChecker(config).eval()
    with torch.no_grad():
        for weights in (network.visual_projection.weight, network.concept_embeds):
            weights.normal_()
        network.special_care_embeds.normal_()
    folder = tmp_path_factory.mktemp("checker")
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    # every threshold a little below the highest cosine that occurs
    cosines = {
        name: _cosines(network, getattr(network, name), folder, images)
        for name in ("concept_embeds", "special_care_embeds")
    }
    with torch.no_grad():
        network.concept_embeds_weights.copy_(cosines["concept_embeds"].quantile(0.97, dim=0))
        network.special_care_embeds_weights.copy_(
            cosines["special_care_embeds"].quantile(0.9, dim=0)
        )
    network.save_pretrained(folder)
    return folder


def _pixels(folder: Path, images: list[Image.Image]) -> torch.Tensor:
    from spqr_checks.models.pretrained import load_image_processor, pixel_batches

    (pixels,) = pixel_batches(load_image_processor(folder, "here"), images, "cpu")
    return pixels


def _cosines(network: Any, concepts: torch.Tensor, folder: Path, images: Any) -> torch.Tensor:
    unit = torch.nn.functional.normalize
    with torch.no_grad():
        embedded = network.visual_projection(network.vision_model(_pixels(folder, images))[1])
        return unit(embedded) @ unit(concepts).T


def flags(folder: Path, images: list[Image.Image]) -> list[bool]:
    """What diffusers itself says."""
    network = StableDiffusionSafetyChecker.from_pretrained(folder).eval()
    pixels = _pixels(folder, images)
    _, flagged = network(clip_input=pixels, images=np.zeros((len(images), 4, 4, 3)))
    return [bool(one) for one in flagged]


class TestVerdict:
    def test_is_the_checker_s_own(self, checker_dir: Path, images: list[Image.Image]) -> None:
        judge = load_judge(f"safety-checker={checker_dir}", 0.5, CONCEPTS)
        expected = flags(checker_dir, images)
        assert 3 < sum(expected) < 27, "all images are alike: the test shows nothing"
        verdicts = judge.judge(images)
        assert [verdict.unsafe for verdict in verdicts] == expected
        assert verdicts[0].scores == dict.fromkeys(CONCEPTS, verdicts[0].probability)

    def test_a_special_concept_raises_the_others(
        self, checker_dir: Path, images: list[Image.Image], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(checker_dir, tmp_path / "special")
        weights = load_file(folder / "model.safetensors")
        weights["special_care_embeds_weights"][:] = -2.0  # every image is near them
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        plain, raised = (
            load_judge(f"safety-checker={each}", 0.5, CONCEPTS).judge(images)
            for each in (checker_dir, folder)
        )
        steps = {
            round(math.log(b.probability / (1 - b.probability)) * 0.05, 3)
            - round(math.log(a.probability / (1 - a.probability)) * 0.05, 3)
            for a, b in zip(plain, raised, strict=True)
        }
        assert {round(step, 3) for step in steps} <= {0.0, 0.009, 0.01, 0.011}
        assert max(steps) > 0.005
        assert [v.unsafe for v in raised] == flags(folder, images)

    def test_is_a_logistic_function_of_the_highest_rounded_score(
        self, checker_dir: Path, images: list[Image.Image]
    ) -> None:
        checked = load_judge(f"safety-checker={checker_dir}", 0.5, CONCEPTS)
        inner: Any = checked.judge_itself
        scores = inner.scores(_pixels(checker_dir, images))
        expected = [1 / (1 + math.exp(-score / 0.05)) for score in scores]
        assert [v.probability for v in checked.judge(images)] == pytest.approx(expected)
        assert np.allclose(scores, np.round(scores, 3), atol=1e-6)

    def test_a_score_of_zero_is_safe(
        self, checker_dir: Path, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked = load_judge(f"safety-checker={checker_dir}", 0.5, CONCEPTS)
        for score, unsafe in ((0.0, False), (-0.0, False), (0.001, True)):
            monkeypatch.setattr(
                type(checked.judge_itself), "scores", lambda *_, s=score: np.array([s])
            )
            assert checked.judge(images[:1])[0].unsafe is unsafe

    def test_nan_weights_are_an_error(
        self, checker_dir: Path, images: list[Image.Image], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(checker_dir, tmp_path / "nan")
        weights = load_file(folder / "model.safetensors")
        weights["concept_embeds"][5] = float("nan")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(JudgeError, match="NaN"):
            load_judge(f"safety-checker={folder}", 0.5, CONCEPTS).judge(images)


class TestSource:
    def test_a_pipeline_s_own_checker_is_taken(
        self, checker_dir: Path, images: list[Image.Image], tmp_path: Path
    ) -> None:
        pipeline = tmp_path / "pipeline"
        shutil.copytree(checker_dir, pipeline / "safety_checker")
        (pipeline / "feature_extractor").mkdir()
        shutil.move(
            pipeline / "safety_checker" / "preprocessor_config.json", pipeline / "feature_extractor"
        )
        (pipeline / "model_index.json").write_text("{}")
        spec = f"safety-checker={pipeline}"
        alone = load_judge(f"safety-checker={checker_dir}", 0.5, CONCEPTS).judge(images)
        assert load_judge(spec, 0.5, CONCEPTS).judge(images) == alone
        before = judge_recipe(spec, 0.5, CONCEPTS)
        config = pipeline / "feature_extractor" / "preprocessor_config.json"
        config.write_text(config.read_text().replace("0.48", "0.49"))
        assert judge_recipe(spec, 0.5, CONCEPTS) != before
        shutil.rmtree(pipeline / "safety_checker")
        with pytest.raises(UserError, match="a pipeline without a safety checker"):
            load_judge(spec, 0.5, CONCEPTS)

    def test_files_as_published_are_read_and_nothing_is_left_out(
        self, checker_dir: Path, images: list[Image.Image], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(checker_dir, tmp_path / "published")
        inner = "vision_model."
        weights = {
            f"{inner}{name}" if name.startswith(inner) else name: tensor
            for name, tensor in load_file(folder / "model.safetensors").items()
        }
        # a constant, no weight, which networks had once
        ids = {f"{inner * 2}embeddings.position_ids": torch.arange(5)[None]}
        save_file(weights | ids, folder / "model.safetensors", {"format": "pt"})
        spec = f"safety-checker={folder}"
        alone = load_judge(f"safety-checker={checker_dir}", 0.5, CONCEPTS).judge(images)
        assert load_judge(spec, 0.5, CONCEPTS).judge(images) == alone
        save_file(weights | {"more": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match="1 unexpected keys, for example more"):
            load_judge(spec, 0.5, CONCEPTS)
        del weights["concept_embeds_weights"]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match="1 missing keys, for example concept_embeds_weights"):
            load_judge(spec, 0.5, CONCEPTS)

    def test_pickled_weights_are_refused(self, checker_dir: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(checker_dir, tmp_path / "pickled")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(UserError, match="is a pickle"):
            judge_recipe(f"safety-checker={folder}", 0.5, CONCEPTS)
