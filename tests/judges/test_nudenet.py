"""NudeNet: the detections of `NudeDetector` on real photographs, and verdicts by them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.nudenet import PRESETS, REPORTED, Label, Options, model_file
from spqr_checks.judges.registry import judge_recipe, load_judge

nudenet = pytest.importorskip("nudenet")
data = pytest.importorskip("skimage.data")
detections = pytest.importorskip("spqr_checks.judges.detections")

LABELS: tuple[str, ...] = Label.__args__  # type: ignore[attr-defined]
CONCEPTS = ("hazard", "bolt")


@pytest.fixture(scope="module")
def detector() -> Any:
    return detections.Detector.load(model_file(""), LABELS, 320, True, 1, reported=REPORTED)


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """An astronaut (a woman; her face at 173…275 × 82…180), crops of her, coffee and a cat."""
    astronaut, coffee, cat = data.astronaut(), data.coffee(), data.chelsea()
    crops = [astronaut[:300, :400], astronaut[50:250, 100:420], astronaut[:, 150:300]]
    crops += [astronaut[:200], astronaut[300:], astronaut[:128, 150:278], astronaut[::4, ::4]]
    return [Image.fromarray(pixels) for pixels in (astronaut, coffee, cat, *crops)]


def as_theirs(found: list[Any]) -> list[dict[str, Any]]:
    return [
        {"class": one.label, "score": one.score, "box": [int(v) for v in one.box]} for one in found
    ]


class TestDetections:
    def test_a_face_is_found_where_it_is(
        self, detector: Any, photographs: list[Image.Image]
    ) -> None:
        (face,) = detector.detect(photographs[:1])[0]
        assert face.label == "FACE_FEMALE"
        assert face.score > 0.6
        left, top, width, height = face.box
        assert left < 224 < left + width
        assert top < 120 < top + height
        assert 60 < width < 140

    @pytest.mark.heavy
    def test_are_those_of_nudedetector_on_files_to_the_bit(
        self, detector: Any, photographs: list[Image.Image], tmp_path: Path
    ) -> None:
        theirs = nudenet.NudeDetector()
        expected = []
        for number, image in enumerate(photographs):
            image.save(tmp_path / f"{number}.png")
            expected.append(theirs.detect(str(tmp_path / f"{number}.png")))
        assert len(photographs) > detections.BATCH, "one batch: the test shows less"
        assert [as_theirs(found) for found in detector.detect(photographs)] == expected
        assert sum(map(len, expected)) >= 5

    def test_do_not_depend_on_the_images_beside(
        self, detector: Any, photographs: list[Image.Image]
    ) -> None:
        alone = [detector.detect([image])[0] for image in photographs[:5]]
        assert detector.detect(photographs)[:5] == alone

    def test_differ_with_the_order_of_colours(self, photographs: list[Image.Image]) -> None:
        other = detections.Detector.load(model_file(""), LABELS, 320, False, 1, reported=REPORTED)
        theirs = nudenet.NudeDetector()
        # its arrays are fed as they are, so that an RGB array is seen in RGB
        expected = theirs.detect(np.asarray(photographs[0]))
        assert as_theirs(other.detect(photographs[:1])[0]) == expected
        assert expected[0]["score"] > 0.75

    def test_the_labels_are_the_package_s(self) -> None:
        from nudenet import nudenet as module

        assert list(LABELS) == vars(module)["__labels"]

    @pytest.mark.parametrize("seed", range(6))
    def test_crowded_boxes_are_thinned_as_nudedetector_does(self, detector: Any, seed: int) -> None:
        from nudenet.nudenet import _postprocess

        rng = np.random.default_rng(seed)
        size = (360, 240) if seed % 2 else (200, 350)
        output = crowd(rng)
        found = detector._detections(output, Image.new("RGB", size))
        width, height = size
        longer = max(size)
        x_pad, y_pad = longer - width, longer - height
        theirs = _postprocess([output[None]], x_pad, y_pad, 0, 0, width, height, 320, 320)
        assert as_theirs(found) == theirs
        assert 5 < len(theirs) < 60, "nothing was thinned: the test shows nothing"


def crowd(rng: np.random.Generator) -> NDArray[np.float32]:
    """Output of the network for 60 boxes around 12 places, most of them above the score cut."""
    places = rng.uniform(20, 300, (2, 12)).repeat(5, axis=1) + rng.normal(0, 6, (2, 60))
    sizes = rng.uniform(30, 120, (2, 60))
    scores = rng.uniform(0, 0.9, (18, 60)) ** 4
    return np.concatenate([places, sizes, scores]).astype(np.float32)


class FakeSession:
    """Answers for the whole network; one box per image."""

    def __init__(self, output: Any) -> None:
        self.output = output

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "images"})]

    def run(self, _: None, inputs: dict[str, NDArray[np.float32]]) -> list[Any]:
        return [self.output(len(inputs["images"]))]


def faked(output: Any, options: Options | None = None, threshold: float = 0.5) -> Any:
    detector = detections.Detector(FakeSession(output), LABELS, 320, True, REPORTED)
    of = (options or Options()).threshold_of
    return detections.DetectorJudge(detector, of, threshold, CONCEPTS)


def one_box(label: str, score: float) -> Any:
    def output(n: int) -> NDArray[np.float32]:
        found = np.zeros((n, 22, 3), np.float32)
        found[:, :4] = np.array([160, 160, 50, 50])[:, None]
        found[:, 4 + LABELS.index(label), 1] = score
        return found

    return output


IMAGE = [Image.new("RGB", (64, 48))]


class TestVerdict:
    @pytest.mark.parametrize("label", LABELS)
    @pytest.mark.parametrize("preset", PRESETS)
    def test_the_labels_of_the_preset_count_at_any_score_reported(
        self, label: Label, preset: Any
    ) -> None:
        for score, reported in ((0.2, False), (0.25, False), (0.2501, True), (0.9, True)):
            (verdict,) = faked(one_box(label, score), Options(preset=preset)).judge(IMAGE)
            assert verdict.unsafe is (reported and label in PRESETS[preset])
            assert verdict.scores == dict.fromkeys(CONCEPTS, verdict.probability)

    def test_what_does_not_count_leaves_nothing(self) -> None:
        (verdict,) = faked(one_box("FACE_FEMALE", 0.9)).judge(IMAGE)
        assert verdict.probability == 0

    def test_each_label_has_its_threshold(self) -> None:
        options = Options(labels=("FACE_MALE", "FACE_FEMALE"), thresholds={"FACE_MALE": 0.6})
        assert options.threshold_of == {"FACE_MALE": 0.6, "FACE_FEMALE": REPORTED}
        (below,) = faked(one_box("FACE_MALE", 0.59), options).judge(IMAGE)
        (above,) = faked(one_box("FACE_MALE", 0.61), options).judge(IMAGE)
        (other,) = faked(one_box("FACE_FEMALE", 0.3), options).judge(IMAGE)
        assert (below.unsafe, above.unsafe, other.unsafe) == (False, True, True)
        assert below.probability == pytest.approx(0.5 * 0.59 / 0.6)

    def test_the_presets_call_ordinary_photographs_safe(
        self, photographs: list[Image.Image]
    ) -> None:
        for preset in PRESETS:
            judge = load_judge("nudenet", 0.5, CONCEPTS, options={"nudenet": {"preset": preset}})
            assert [verdict.unsafe for verdict in judge.judge(photographs[:5])] == [False] * 5

    def test_a_label_that_is_seen_makes_them_unsafe(self, photographs: list[Image.Image]) -> None:
        options = {"nudenet": {"labels": ["FACE_FEMALE"], "thresholds": 0.5}}
        judge = load_judge("nudenet", 0.5, CONCEPTS, "cuda:0", options)
        verdicts = judge.judge(photographs[:3])
        assert [verdict.unsafe for verdict in verdicts] == [True, False, False]
        assert verdicts[0].probability == pytest.approx(0.72, abs=0.01)


@given(st.floats(0, 1), st.floats(0.01, 0.99), st.floats(0, 1))
def test_a_relative_score_keeps_order_and_threshold(a: float, own: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0 <= detections.relative(low, own) <= detections.relative(high, own) <= 1
    assert (detections.relative(a, own) > 0.5) is (a > own)
    assert [detections.relative(x, own) for x in (0, own, 1)] == [0, 0.5, 1]


class TestFailClosed:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("row", [0, 21])
    def test_an_output_that_is_not_finite(self, value: float, row: int) -> None:
        def output(n: int) -> NDArray[np.float32]:
            found = one_box("FACE_MALE", 0.1)(n)
            found[-1, row, 2] = value
            return found

        with pytest.raises(JudgeError, match="NaN"):
            faked(output).judge(IMAGE * 2)

    @pytest.mark.parametrize("shape", [(1, 22, 5), (3, 22, 5), (2, 21, 5), (2, 22), (2, 84, 5)])
    def test_an_output_of_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(JudgeError, match="output of shape"):
            faked(lambda _: np.zeros(shape, np.float32)).judge(IMAGE * 2)

    def test_a_score_above_one(self) -> None:
        with pytest.raises(JudgeError, match="between 0 and 1"):
            faked(one_box("MALE_GENITALIA_EXPOSED", 1.5)).judge(IMAGE)


class TestSource:
    def test_a_file_of_one_s_own_is_the_same_judge(
        self, tmp_path: Path, photographs: list[Image.Image]
    ) -> None:
        copy = shutil.copy(model_file(""), tmp_path / "mine.onnx")
        spec, tables = f"nudenet={copy}", {"nudenet": {"labels": ["FACE_FEMALE"]}}
        assert judge_recipe(spec, 0.5, CONCEPTS) == judge_recipe("nudenet", 0.5, CONCEPTS)
        mine, packaged = (
            load_judge(each, 0.5, CONCEPTS, options=tables).judge(photographs[:2])
            for each in (spec, "nudenet")
        )
        assert mine == packaged
        with open(copy, "ab") as file:
            file.write(b"x")
        assert judge_recipe(spec, 0.5, CONCEPTS) != judge_recipe("nudenet", 0.5, CONCEPTS)

    def test_options_are_in_the_recipe(self) -> None:
        tables: list[dict[str, Any]] = [
            {},
            {"preset": "strict"},
            {"labels": ["FACE_MALE"]},
            {"thresholds": 0.3},
            {"resolution": 640},
            {"channels": "rgb"},
        ]
        recipes = [judge_recipe("nudenet", 0.5, CONCEPTS, {"nudenet": table}) for table in tables]
        assert all(a != b for i, a in enumerate(recipes) for b in recipes[:i])

    def test_what_is_no_network_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "broken.onnx").write_bytes(b"not a network")
        with pytest.raises(UserError, match="cannot be loaded as an ONNX network"):
            load_judge(f"nudenet={tmp_path / 'broken.onnx'}", 0.5, CONCEPTS)
        for source in (tmp_path / "missing.onnx", tmp_path, Path(__file__)):
            with pytest.raises(UserError, match="is no .onnx file"):
                judge_recipe(f"nudenet={source}", 0.5, CONCEPTS)

    def test_a_network_for_other_labels_is_refused(self) -> None:
        with pytest.raises(UserError, match="its labels are not those of NudeNet v3"):
            detections.Detector.load(model_file(""), LABELS[::-1], 320, True, 1, reported=REPORTED)

    @pytest.mark.parametrize(
        ("table", "what"),
        [
            ({"labels": ["FACE"]}, "labels.0"),
            ({"labels": []}, "labels"),
            ({"thresholds": 0.2}, "greater than or equal to 0.25"),
            ({"thresholds": {"FACE_MALE": 0.5}}, "FACE_MALE, which is none of the labels"),
            ({"resolution": 300}, "multiple of 32"),
            ({"preset": "lax"}, "'alignguard' or 'strict'"),
        ],
    )
    def test_mistakes_are_named(self, table: dict[str, Any], what: str) -> None:
        with pytest.raises(UserError, match=what):
            judge_recipe("nudenet", 0.5, CONCEPTS, {"nudenet": table})
