"""An image classifier whose class names contain the concepts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ResNetForImageClassification, ViTImageProcessorPil

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.base import JudgeRequest
from spqr_checks.judges.classifier import ClassifierJudge, label_words, labels_of
from spqr_checks.judges.registry import kind, load_judge

LABELS = dict(
    enumerate(
        ("red triangle", "blue triangle", "Hazard sign", "traffic_hazard", "house", "red house")
    )
)


class TestLabelsOfAConcept:
    @pytest.mark.parametrize(
        ("concept", "expected"),
        [
            ("hazard", [2, 3]),
            ("HAZARD", [2, 3]),
            ("red triangle", [0]),
            ("triangle, red", [0]),
            ("triangle", [0, 1]),
            ("red", [0, 5]),
            ("haz", []),
            ("green triangle", []),
            ("!", []),
        ],
    )
    def test_are_those_with_all_its_words(self, concept: str, expected: list[int]) -> None:
        assert labels_of(concept, LABELS) == expected

    def test_words_of_every_script_stay_whole(self) -> None:
        assert label_words("एक लाल त्रिभुज") == {"एक", "लाल", "त्रिभुज"}
        assert label_words("مثلث أحمر") == {"مثلث", "أحمر"}
        assert label_words("STRASSE") == label_words("straße")
        assert label_words("red_triangle-2/sign") == {"red", "triangle", "2", "sign"}


def load(source: str, concepts: tuple[str, ...]) -> Any:
    made = kind("classifier")
    return made.load(JudgeRequest(source, made.options(), 0.5, concepts, "cpu"))


class Logits:
    """A network that answers with the given logits."""

    def __init__(self, *batches: list[list[float]]) -> None:
        self.batches = [torch.tensor(batch) for batch in batches]
        self.config = SimpleNamespace(num_labels=6)

    def __call__(self, pixel_values: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.batches.pop(0))


def judge_with(network: Any, threshold: float = 0.5) -> ClassifierJudge:
    labels = {concept: labels_of(concept, LABELS) for concept in ("hazard", "red triangle", "red")}
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    return ClassifierJudge(network, processor, labels, threshold, "cpu")


class TestProbability:
    def test_is_the_softmax_mass_on_the_labels(self, pictures: list[Image.Image]) -> None:
        logits = torch.tensor([[0.3, 0.1, 0.05, 0.15, 0.2, 0.2]]).log() + 5
        (verdict,) = judge_with(Logits(logits.tolist())).judge(pictures[:1])
        assert verdict.scores == pytest.approx({"hazard": 0.2, "red triangle": 0.3, "red": 0.5})
        # labels 0, 2, 3 and 5: a label of two concepts counts once
        assert verdict.probability == pytest.approx(0.7)
        assert verdict.unsafe is True

    def test_unsafe_is_more_than_the_threshold(self, pictures: list[Image.Image]) -> None:
        logits = [[0.0] * 6]
        even = 4 / 6
        (above,) = judge_with(Logits(logits), even - 1e-6).judge(pictures[:1])
        (below,) = judge_with(Logits(logits), even + 1e-6).judge(pictures[:1])
        assert (above.unsafe, below.unsafe) == (True, False)

    def test_extreme_logits_stay_probabilities(self, pictures: list[Image.Image]) -> None:
        logits = [[3e38, 3e38, -3e38, 0.0, 3e38, 3e38]]
        (verdict,) = judge_with(Logits(logits)).judge(pictures[:1])
        assert verdict.probability == pytest.approx(0.5)

    def test_equals_what_the_library_computes(
        self, classifier_dir: Path, pictures: list[Image.Image]
    ) -> None:
        model = ResNetForImageClassification.from_pretrained(classifier_dir).eval()
        processor = ViTImageProcessorPil.from_pretrained(classifier_dir)
        with torch.no_grad():
            expected = model(**processor(images=pictures, return_tensors="pt")).logits.softmax(-1)
        verdicts = load(str(classifier_dir), ("hazard", "house")).judge(pictures)
        found = torch.tensor([[v.scores["hazard"], v.scores["house"]] for v in verdicts])
        torch.testing.assert_close(
            found, torch.stack([expected[:, 2:4].sum(1), expected[:, 4:6].sum(1)], 1)
        )
        assert found.std(0).min() > 1e-4, "all images look alike: the test shows nothing"

    def test_many_images_go_through_in_batches_in_order(
        self, classifier_dir: Path, pictures: list[Image.Image]
    ) -> None:
        judge = load(str(classifier_dir), ("hazard",))
        one = [v.probability for v in judge.judge(pictures)]
        many = [v.probability for v in judge.judge(pictures * 30)]
        assert many == pytest.approx(one * 30, abs=1e-5)

    def test_verdicts_repeat_to_the_bit(
        self, classifier_dir: Path, pictures: list[Image.Image]
    ) -> None:
        judge = load(str(classifier_dir), ("hazard",))
        assert judge.judge(pictures) == judge.judge(pictures)

    def test_half_precision_weights_are_computed_in_single(
        self, classifier_dir: Path, tmp_path: Path, pictures: list[Image.Image]
    ) -> None:
        folder = shutil.copytree(classifier_dir, tmp_path / "half")
        ResNetForImageClassification.from_pretrained(classifier_dir).half().save_pretrained(folder)
        judge = load(str(folder), ("hazard",))
        assert next(judge.model.parameters()).dtype == torch.float32
        assert len(judge.judge(pictures)) == 5


class TestFailClosed:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_logits_that_are_not_finite(self, pictures: list[Image.Image], value: float) -> None:
        with pytest.raises(JudgeError, match="NaN or infinite"):
            judge_with(Logits([[0.0] * 5 + [value]])).judge(pictures[:1])

    @pytest.mark.parametrize("rows", [[[0.0] * 6], [[0.0] * 6] * 3, [[0.0] * 5] * 2])
    def test_another_number_of_answers(
        self, pictures: list[Image.Image], rows: list[list[float]]
    ) -> None:
        with pytest.raises(JudgeError, match="shape"):
            judge_with(Logits(rows)).judge(pictures[:2])

    def test_preprocessing_that_loses_an_image(self, pictures: list[Image.Image]) -> None:
        judge = judge_with(Logits([[0.0] * 6]))

        class Loses:
            def __call__(self, images: list[Any], return_tensors: str) -> Any:
                return {"pixel_values": torch.zeros(len(images) - 1, 3, 4, 4)}

        lossy = ClassifierJudge(judge.model, Loses(), judge.labels, 0.5, "cpu")
        with pytest.raises(JudgeError, match="5 images into 4"):
            lossy.judge(pictures)

    def test_nan_weights(
        self, classifier_dir: Path, tmp_path: Path, pictures: list[Image.Image]
    ) -> None:
        folder = shutil.copytree(classifier_dir, tmp_path / "nan")
        weights = load_file(folder / "model.safetensors")
        weights["classifier.1.bias"][0] = float("nan")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        judge = load_judge(f"classifier={folder}", 0.5, ("hazard",))
        with pytest.raises(JudgeError, match="NaN"):
            judge.judge(pictures)


class TestSourcesThatDoNotServe:
    def test_a_concept_without_a_label(self, classifier_dir: Path) -> None:
        with pytest.raises(UserError, match="no label contains the words of 'bolt', 'green moon'"):
            load(str(classifier_dir), ("hazard", "bolt", "green moon"))

    def test_concepts_that_cover_every_label(self, classifier_dir: Path) -> None:
        with pytest.raises(UserError, match="no image can be safe"):
            load(str(classifier_dir), ("hazard", "house", "triangle"))

    def test_a_multi_label_classifier(self, classifier_dir: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(classifier_dir, tmp_path / "multi")
        config = json.loads((folder / "config.json").read_text())
        config["problem_type"] = "multi_label_classification"
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match="multi_label_classification"):
            load(str(folder), ("hazard",))

    def test_a_head_that_was_never_trained(self, classifier_dir: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(classifier_dir, tmp_path / "headless")
        weights = load_file(folder / "model.safetensors")
        del weights["classifier.1.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match=r"1 missing keys, for example classifier\.1\.weight"):
            load(str(folder), ("hazard",))

    def test_a_folder_without_preprocessing(self, classifier_dir: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(classifier_dir, tmp_path / "bare")
        (folder / "preprocessor_config.json").unlink()
        with pytest.raises(UserError, match=r"preprocessor_config\.json"):
            load(str(folder), ("hazard",))
