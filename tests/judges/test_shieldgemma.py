"""ShieldGemma 2: every policy by Yes and No, on the real class at a tiny size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_vlms
import torch
from safetensors.torch import load_file, save_file
from tiny_vlms import POLICIES, images

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.registry import judge_recipe, load_judge
from spqr_checks.judges.shieldgemma import Options, ShieldGemma

pytestmark = pytest.mark.usefixtures("one_thread")

CONCEPTS = ("hazard", "red triangle")
ANY_MASS = {"min_mass": 1e-9}
"""A random model says many things beside Yes and No."""


@pytest.fixture(scope="module")
def shieldgemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return tiny_vlms.shieldgemma(tmp_path_factory.mktemp("shieldgemma"))


def made(folder: Path, **options: Any) -> Any:
    given = {"shieldgemma": ANY_MASS | options}
    return load_judge(f"shieldgemma={folder}", 0.5, CONCEPTS, options=given)


def raw(folder: Path, **options: Any) -> ShieldGemma:
    judge = made(folder, **options).judge_itself
    assert isinstance(judge, ShieldGemma)
    return judge


class TestProbability:
    def test_of_each_policy_is_what_the_library_computes(self, shieldgemma: Path) -> None:
        judge = raw(shieldgemma)
        (image,) = images((20, 16))
        (found,) = judge.shares([image])
        assert len(found) == len(POLICIES) == len(judge.policies)
        for share, policy in zip(found, POLICIES, strict=True):
            inputs = judge.processor(images=[image], policies=[policy], return_tensors="pt")
            with torch.inference_mode():
                expected = judge.model(**inputs).probabilities
            assert share == pytest.approx(float(expected[0, 0]), rel=1e-5)
        assert len(set(found)) == 3, "all policies look alike: the test shows nothing"

    def test_of_an_image_is_its_highest(self, shieldgemma: Path) -> None:
        judge, pictures = made(shieldgemma), images((20, 16), (16, 40), (16, 16))
        shares = raw(shieldgemma).shares(pictures)
        for verdict, of_image in zip(judge.judge(pictures), shares, strict=True):
            assert verdict.probability == max(of_image)
            assert verdict.scores == dict.fromkeys(CONCEPTS, verdict.probability)

    def test_a_batch_equals_single_images(self, shieldgemma: Path) -> None:
        pictures = images((16, 16), (40, 16), (20, 30))
        # policies of three lengths, so rows are padded
        together = raw(shieldgemma).shares(pictures)
        alone = [raw(shieldgemma, policies=name).shares(pictures) for name in POLICIES]
        for n, of_image in enumerate(together):
            assert of_image == pytest.approx([one[n][0] for one in alone], rel=1e-4)
        few = made(shieldgemma, batch=2).judge(pictures)
        assert [v.probability for v in few] == pytest.approx([max(s) for s in together], rel=1e-4)

    def test_the_image_is_seen(self, shieldgemma: Path) -> None:
        found = raw(shieldgemma).shares(images((16, 16), (16, 16)))
        assert found[0] != found[1]


class TestPolicies:
    def test_some_are_chosen_by_name(self, shieldgemma: Path) -> None:
        assert list(raw(shieldgemma, policies="words,signs").policies) == ["words", "signs"]

    def test_an_unknown_one_lists_those_there_are(self, shieldgemma: Path) -> None:
        with pytest.raises(UserError, match="no policy gambling; it has: signs, shapes, words"):
            made(shieldgemma, policies=["gambling"])

    def test_own_ones_may_name_the_concepts(self, shieldgemma: Path, tmp_path: Path) -> None:
        file = tmp_path / "own.toml"
        file.write_text('mine = "No {concepts}."\n', encoding="utf-8")
        judge = raw(shieldgemma, own=str(file), policies=["mine"])
        text = judge.processor.policy_definitions
        assert text == {"mine": "No hazard, red triangle."}
        assert len(judge.shares(images((16, 16)))[0]) == 1

    def test_those_of_the_paper_are_taken_where_a_model_comes_with_none(
        self, shieldgemma: Path, tmp_path: Path
    ) -> None:
        assert dict(raw(shieldgemma).policies) == POLICIES
        folder = shutil.copytree(shieldgemma, tmp_path / "bare")
        (folder / "processor_config.json").unlink()
        assert set(raw(folder).policies) == {"dangerous", "sexual", "violence"}

    @pytest.mark.parametrize(
        ("text", "what"),
        [("signs = 1", "must be a text"), ("signs = ' '", "must be a text"), ("=", "not valid")],
    )
    def test_a_file_of_something_else_is_refused(
        self, tmp_path: Path, text: str, what: str
    ) -> None:
        (tmp_path / "own.toml").write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=what):
            Options.model_validate({"own": str(tmp_path / "own.toml")})

    def test_their_texts_are_part_of_the_recipe(self, shieldgemma: Path, tmp_path: Path) -> None:
        def recipe(text: str) -> dict[str, Any]:
            (tmp_path / "own.toml").write_text(text, encoding="utf-8")
            options = {"shieldgemma": {"own": str(tmp_path / "own.toml")}}
            return judge_recipe(f"shieldgemma={shieldgemma}", 0.5, CONCEPTS, options)

        assert recipe("a = 'x'") == recipe("a='x'") != recipe("a = 'y'")


class TestFailClosed:
    def test_an_answer_that_is_neither_yes_nor_no(self, shieldgemma: Path) -> None:
        with pytest.raises(JudgeError, match="unparsable answer"):
            made(shieldgemma, min_mass=0.9).judge(images((16, 16)))

    def test_nan_weights(self, shieldgemma: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(shieldgemma, tmp_path / "nan")
        weights = load_file(folder / "model.safetensors")
        (name,) = [name for name in weights if name.endswith("embed_tokens.weight")]
        weights[name][:] = float("nan")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(JudgeError, match="NaN"):
            made(folder).judge(images((16, 16)))

    def test_whatever_else_fails(self, shieldgemma: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        judge = made(shieldgemma)

        def broken(**_: Any) -> Any:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(judge.judge_itself.model.model, "get_image_features", broken)
        with pytest.raises(JudgeError, match="out of memory"):
            judge.judge(images((16, 16)))


class TestSourcesThatDoNotServe:
    def test_another_kind_of_model(self, classifier_dir: Path) -> None:
        with pytest.raises(UserError, match="a resnet model; a ShieldGemma 2 model"):
            made(classifier_dir)

    def test_a_tokenizer_whose_yes_is_another_token(
        self, shieldgemma: Path, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(shieldgemma, tmp_path / "other")
        config = json.loads((folder / "config.json").read_text())
        config["yes_token_index"] += 1
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match="is not 'Yes'"):
            made(folder)

    def test_a_tokenizer_without_a_token_for_images(
        self, shieldgemma: Path, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(shieldgemma, tmp_path / "blind")
        config = json.loads((folder / "tokenizer_config.json").read_text())
        for name in ("boi_token", "eoi_token", "image_token"):
            config.pop(name, None)
        config.pop("extra_special_tokens", None)
        config.pop("model_specific_special_tokens", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match="no processor of ShieldGemma 2"):
            made(folder)
