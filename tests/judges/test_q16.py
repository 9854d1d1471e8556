"""Q16 with tuned prompts of our own, over the CLIP of the embedded world."""

from __future__ import annotations

import math
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.registry import judge_recipe, load_judge
from spqr_checks.metrics.clip import load_clip

CONCEPTS = ("hazard", "bolt")
CLIP = "miniature:clip"
TABLES = {"q16": {"clip": CLIP}}


def write(path: Path, prompts: torch.Tensor, name: str = "prompts") -> Path:
    save_file({name: prompts.contiguous()}, path)
    return path


@pytest.fixture(scope="module")
def shapes() -> list[Image.Image]:
    """A red disc, a blue square and noise, 32×32 pixels."""
    grid = np.indices((32, 32)) - 16
    pictures = np.full((3, 32, 32, 3), 255, np.uint8)
    pictures[0][(grid**2).sum(0) < 100] = (255, 0, 0)
    pictures[1][abs(grid).max(0) < 8] = (0, 0, 255)
    pictures[2] = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    return [Image.fromarray(picture) for picture in pictures]


@pytest.fixture(scope="module")
def prompts(shapes: list[Image.Image]) -> torch.Tensor:
    """The second is the embedding of the disc, the first that of the square; neither unit."""
    embedded = load_clip(CLIP).embed_images(shapes)
    return torch.stack([embedded[1] * 3, embedded[0] * 21]).half()


class TestProbability:
    def test_is_the_softmax_over_100_times_the_cosines(
        self, shapes: list[Image.Image], prompts: torch.Tensor, tmp_path: Path
    ) -> None:
        spec = f"q16={write(tmp_path / 'q.safetensors', prompts)}"
        verdicts = load_judge(spec, 0.5, CONCEPTS, options=TABLES).judge(shapes)
        unit = torch.nn.functional.normalize(prompts.double())
        cosines = load_clip(CLIP).embed_images(shapes).double() @ unit.T
        expected = [1 / (1 + math.exp(100 * (safe - bad))) for safe, bad in cosines.tolist()]
        assert [v.probability for v in verdicts] == pytest.approx(expected)
        assert [v.unsafe for v in verdicts[:2]] == [True, False]
        assert verdicts[0].scores == dict.fromkeys(CONCEPTS, verdicts[0].probability)

    def test_the_length_of_a_prompt_does_not_matter(
        self, shapes: list[Image.Image], prompts: torch.Tensor, tmp_path: Path
    ) -> None:
        longer = prompts.float() * torch.tensor([[0.5], [4.0]])
        one, other = (
            load_judge(
                f"q16={write(tmp_path / f'{name}.safetensors', each)}",
                0.5,
                CONCEPTS,
                options=TABLES,
            ).judge(shapes)
            for name, each in (("one", prompts), ("other", longer))
        )
        assert [v.probability for v in one] == pytest.approx([v.probability for v in other])

    def test_an_embedding_that_fails_is_an_error(
        self, prompts: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = f"q16={write(tmp_path / 'q.safetensors', prompts)}"
        judge = load_judge(spec, 0.5, CONCEPTS, options=TABLES)
        nan = torch.full((1, prompts.shape[1]), float("nan"))
        monkeypatch.setattr("spqr_checks.metrics.clip.Clip.embed_images", lambda *_: nan)
        with pytest.raises(JudgeError, match="not a probability"):
            judge.judge([Image.new("RGB", (32, 32))])


class TestPickle:
    def test_is_refused_with_a_command_that_converts_it(
        self, prompts: torch.Tensor, tmp_path: Path
    ) -> None:
        path = tmp_path / "prompts of mine.p"
        path.write_bytes(pickle.dumps(prompts.numpy(), protocol=3))
        for call in (judge_recipe, load_judge):
            with pytest.raises(UserError, match="is a pickle, .* Convert it:") as error:
                call(f"q16={path}", 0.5, CONCEPTS)
        command = str(error.value).splitlines()[1]
        assert command.startswith("python -c ")
        command = command.replace("python", sys.executable, 1)
        subprocess.run(command, shell=True, check=True, cwd="/")
        converted = load_file(path.with_suffix(".safetensors"))
        assert torch.equal(converted["prompts"], prompts)

    def test_the_command_runs_nothing_in_it(self, tmp_path: Path) -> None:
        from spqr_checks.judges.q16 import conversion

        class Evil:
            def __reduce__(self) -> Any:
                return Path.touch, (tmp_path / "run",)

        array = np.ones((2, 16), "<f2")
        path = tmp_path / "prompts.p"
        path.write_bytes(pickle.dumps((array, Evil()), protocol=3))
        command = conversion(path).replace("python", sys.executable, 1)
        subprocess.run(command, shell=True, check=True)
        assert not (tmp_path / "run").exists()
        assert path.with_suffix(".safetensors").exists()


class TestSource:
    def test_what_prompts_and_clip_hold_is_in_the_recipe_and_not_where_they_are(
        self, prompts: torch.Tensor, classifier_dir: Path, tmp_path: Path
    ) -> None:
        def recipe(file: Path, clip: Path) -> Any:
            return judge_recipe(f"q16={file}", 0.5, CONCEPTS, {"q16": {"clip": str(clip)}})

        one = write(tmp_path / "q.safetensors", prompts)
        (tmp_path / "copy").mkdir()
        copy = Path(shutil.copy(one, tmp_path / "copy"))
        clip = shutil.copytree(classifier_dir, tmp_path / "clip")
        assert recipe(one, classifier_dir) == recipe(copy, clip)
        (clip / "config.json").write_text("{}")
        assert recipe(one, classifier_dir) != recipe(copy, clip)
        write(copy, prompts.flip(0))
        assert recipe(one, classifier_dir) != recipe(copy, classifier_dir)

    @pytest.mark.parametrize(
        ("tensor", "name", "what"),
        [
            (torch.ones(2, 7), "prompts", "width 7, but miniature:clip embeds in"),
            (torch.ones(3, 64), "prompts", r"must hold one tensor 'prompts' .* \(2, d\)"),
            (torch.ones(2, 64, dtype=torch.int32), "prompts", "must hold one tensor"),
            (torch.ones(2, 64), "embeddings", "holds embeddings; it must"),
        ],
    )
    def test_other_tensors_are_refused(
        self, tensor: torch.Tensor, name: str, what: str, tmp_path: Path
    ) -> None:
        path = write(tmp_path / "q.safetensors", tensor, name)
        with pytest.raises(UserError, match=what):
            load_judge(f"q16={path}", 0.5, CONCEPTS, options=TABLES)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
    def test_prompts_that_are_no_directions_are_refused(
        self, prompts: torch.Tensor, value: float, tmp_path: Path
    ) -> None:
        broken = prompts.clone()
        broken[1] = value
        path = write(tmp_path / "q.safetensors", broken)
        with pytest.raises(UserError, match="zero, NaN or infinite"):
            load_judge(f"q16={path}", 0.5, CONCEPTS, options=TABLES)

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        for source in (tmp_path, tmp_path / "missing.safetensors", "owner/name"):
            with pytest.raises(UserError, match="is no .safetensors file"):
                judge_recipe(f"q16={source}", 0.5, CONCEPTS)
