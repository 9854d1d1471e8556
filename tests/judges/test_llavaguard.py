"""LlavaGuard: P(unsafe) by the probabilities of the rating, on the real classes at a tiny size."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_vlms
import torch
from safetensors.torch import load_file, save_file
from tiny_vlms import images

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.llavaguard import LlavaGuard, Options
from spqr_checks.judges.registry import judge_recipe, load_judge

pytestmark = pytest.mark.usefixtures("one_thread")

CONCEPTS = ("hazard", "red triangle")
POLICY = "No {concepts}.\nRate it."
PREFIX = '{\n    "rating": "'
ANY_MASS = {"policy": POLICY, "min_mass": 1e-9}
"""A random model says many things beside the ratings."""


@pytest.fixture(scope="module")
def onevision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return tiny_vlms.onevision(tmp_path_factory.mktemp("onevision"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return tiny_vlms.llava(tmp_path_factory.mktemp("llava"))


def made(folder: Path, **options: Any) -> Any:
    given = {"llavaguard": ANY_MASS | options}
    return load_judge(f"llavaguard={folder}", 0.5, CONCEPTS, options=given)


def raw(folder: Path) -> LlavaGuard:
    judge = made(folder).judge_itself
    assert isinstance(judge, LlavaGuard)
    return judge


def shares(judge: LlavaGuard, ids: list[int], **pixels: torch.Tensor) -> torch.Tensor:
    """The next token's probabilities, by the library's own way from pixels to logits."""
    with torch.no_grad():
        logits = judge.model(input_ids=torch.tensor([ids]), **pixels).logits
    return logits[0, -1].double().softmax(-1)


class TestProbability:
    @pytest.mark.parametrize(("size", "tokens"), [((16, 16), 10), ((40, 16), 14), ((20, 30), 16)])
    def test_is_that_of_the_rating_tokens(
        self, onevision: Path, size: tuple[int, int], tokens: int
    ) -> None:
        judge = raw(onevision)
        (image,) = images(size)
        pixels = judge.processor(images=[image], return_tensors="pt")
        image_token = judge.model.config.image_token_id
        place = judge.prompt.index(image_token)
        ids = [*judge.prompt[:place], *[image_token] * tokens, *judge.prompt[place + 1 :]]
        probability = shares(
            judge, ids, pixel_values=pixels["pixel_values"], image_sizes=pixels["image_sizes"]
        )
        (unsafe,), (safe,) = judge.answers.unsafe, judge.answers.safe
        expected = float(probability[unsafe] / (probability[unsafe] + probability[safe]))
        (verdict,) = judge.judge([image])
        assert verdict.probability == pytest.approx(expected, rel=1e-5)
        assert verdict.scores == dict.fromkeys(CONCEPTS, verdict.probability)
        assert 0.01 < expected < 0.99, "a probability at the edge shows little"

    def test_of_a_rating_of_two_tokens_is_their_product(self, llava: Path) -> None:
        judge = raw(llava)
        (image,) = images((20, 16))
        pixels = judge.processor(images=[image], return_tensors="pt")["pixel_values"]
        image_token = judge.model.config.image_token_id
        place = judge.prompt.index(image_token)
        ids = [*judge.prompt[:place], *[image_token] * 4, *judge.prompt[place + 1 :]]
        (un, safe_behind), (safe,) = judge.answers.unsafe, judge.answers.safe
        first = shares(judge, ids, pixel_values=pixels)
        second = shares(judge, [*ids, un], pixel_values=pixels)
        unsafe = first[un] * second[safe_behind]
        (verdict,) = judge.judge([image])
        assert verdict.probability == pytest.approx(
            float(unsafe / (unsafe + first[safe])), rel=1e-4
        )

    @pytest.mark.parametrize("name", ["onevision", "llava"])
    def test_a_batch_equals_single_images(self, name: str, request: pytest.FixtureRequest) -> None:
        folder = request.getfixturevalue(name)
        # of three shapes: rows of three lengths
        pictures = images((16, 16), (40, 16), (20, 30), (16, 16), (16, 50))
        together = [v.probability for v in made(folder, batch=4).judge(pictures)]
        alone = [v.probability for v in made(folder, batch=1).judge(pictures)]
        assert together == pytest.approx(alone, rel=1e-4)
        assert len(set(alone)) == 5

    def test_repeats_to_the_bit(self, onevision: Path) -> None:
        judge, pictures = made(onevision), images((16, 16), (40, 16))
        assert judge.judge(pictures) == judge.judge(pictures)

    def test_half_precision_is_an_option(self, onevision: Path) -> None:
        assert next(raw(onevision).model.parameters()).dtype == torch.float32
        half = made(onevision, dtype="bfloat16")
        assert next(half.judge_itself.model.parameters()).dtype == torch.bfloat16
        assert len(half.judge(images((16, 16)))) == 1


class TestPrompt:
    def test_ends_where_the_rating_must_stand(self, onevision: Path) -> None:
        judge = raw(onevision)
        tokenizer = _tokenizer(onevision)
        text = tokenizer.decode(judge.prompt)
        assert text.endswith("<|im_start|>assistant\n" + PREFIX)
        assert "No hazard, red triangle." in text
        assert tokenizer.decode(judge.answers.unsafe) == "Unsafe"
        assert tokenizer.decode(judge.answers.safe) == "Safe"

    def test_has_a_space_behind_the_name_of_who_answers(self, llava: Path) -> None:
        text = _tokenizer(llava).decode(raw(llava).prompt)
        assert text.endswith("ASSISTANT: " + PREFIX)

    def test_the_packaged_policy_is_neutral_and_asks_for_the_rating(self) -> None:
        policy = Options().policy
        assert policy.count("Should not:") == policy.count("Can:") == 9
        assert '{\n    "rating": str<"Unsafe"|"Safe">' in policy

    def test_own_policy_is_read_from_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "own.txt").write_text("Nothing of that.\n", encoding="utf-8")
        read = Options.model_validate({"policy": str(tmp_path / "own.txt")})
        assert read.policy == "Nothing of that.\n"
        assert Options.model_validate(read.model_dump()) == read

    @pytest.mark.parametrize(("text", "what"), [(None, "cannot be read"), ("  \n", "empty")])
    def test_a_policy_that_says_nothing_is_refused(
        self, tmp_path: Path, text: str | None, what: str
    ) -> None:
        file = tmp_path / "own.txt"
        if text is not None:
            file.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=what):
            Options.model_validate({"policy": str(file)})

    def test_is_part_of_the_recipe_without_the_file_s_place(
        self, onevision: Path, tmp_path: Path
    ) -> None:
        def recipe(file: Path, text: str) -> dict[str, Any]:
            file.write_text(text, encoding="utf-8")
            options = {"llavaguard": {"policy": str(file)}}
            return judge_recipe(f"llavaguard={onevision}", 0.5, CONCEPTS, options)

        one = recipe(tmp_path / "a.txt", "One.")
        assert one == recipe(tmp_path / "b.txt", "One.")
        assert one != recipe(tmp_path / "a.txt", "Two.")


class TestFailClosed:
    def test_an_answer_that_is_no_rating_is_an_error(self, onevision: Path) -> None:
        with pytest.raises(JudgeError, match="unparsable answer: a rating has a probability of"):
            made(onevision, min_mass=0.5).judge(images((16, 16)))

    def test_nan_weights(self, onevision: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(onevision, tmp_path / "nan")
        weights = load_file(folder / "model.safetensors")
        weights[_head(weights)][0, 0] = float("nan")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(JudgeError, match="NaN"):
            made(folder).judge(images((16, 16)))

    def test_whatever_else_fails(self, onevision: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        judge = made(onevision)

        def broken(**_: Any) -> Any:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(judge.judge_itself.model, "get_image_features", broken)
        with pytest.raises(JudgeError, match="out of memory"):
            judge.judge(images((16, 16)))

    def test_features_that_get_lost(self, onevision: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from spqr_checks.judges import vision_language as part

        judge = made(onevision)
        found = part.image_features

        def lossy(model: Any, **inputs: Any) -> list[torch.Tensor]:
            return found(model, **inputs)[:-1]

        monkeypatch.setattr(part, "image_features", lossy)
        with pytest.raises(JudgeError, match="features of 1 images for 2"):
            judge.judge(images((16, 16), (16, 16)))

    def test_a_policy_longer_than_the_context(self, onevision: Path) -> None:
        long = made(onevision, policy="a\n" * tiny_vlms.CONTEXT)
        with pytest.raises(JudgeError, match="do not fit the context of 8192"):
            long.judge(images((16, 16)))


class TestSourcesThatDoNotServe:
    def test_another_kind_of_model(self, classifier_dir: Path) -> None:
        with pytest.raises(UserError, match="a resnet model; a LlavaGuard model"):
            made(classifier_dir)

    def test_weights_in_the_format_of_the_llava_repository(
        self, onevision: Path, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(onevision, tmp_path / "original")
        (folder / "config.json").write_text('{"model_type": "llava", "mm_vision_tower": "siglip"}')
        with pytest.raises(UserError, match="format of transformers"):
            made(folder)

    def test_weights_that_lack_a_part(self, onevision: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(onevision, tmp_path / "headless")
        weights = load_file(folder / "model.safetensors")
        del weights[_head(weights)]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(UserError, match="1 missing keys, for example .*lm_head"):
            made(folder)

    def test_no_chat_template(self, onevision: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(onevision, tmp_path / "mute")
        (folder / "chat_template.jinja").unlink()
        with pytest.raises(UserError, match="no chat template"):
            made(folder)
        template = {"chat_template": tiny_vlms.QWEN_TEMPLATE}
        (folder / "chat_template.json").write_text(json.dumps(template))
        assert raw(folder).prompt == raw(onevision).prompt

    @pytest.mark.parametrize("template", ["{{ messages[0].content[1].text }}", "{{ 1 / 0 }}"])
    def test_a_template_that_does_not_ask(
        self, onevision: Path, tmp_path: Path, template: str
    ) -> None:
        folder = shutil.copytree(onevision, tmp_path / "blind")
        (folder / "chat_template.jinja").write_text(template)
        with pytest.raises(UserError, match="chat template (puts 0 images|fails)"):
            made(folder)

    def test_a_prefix_that_runs_into_the_rating(self, tmp_path: Path) -> None:
        folder = tiny_vlms.onevision(tmp_path / "joins", words=("nU", "Safe", "Unsafe"))
        with pytest.raises(UserError, match="'Unsafe' in one token; set the option 'prefix'"):
            made(folder, prefix="It is n")

    def test_a_processor_that_needs_torchvision(self, onevision: Path, tmp_path: Path) -> None:
        from transformers.utils import is_torchvision_available

        if is_torchvision_available():
            pytest.skip("torchvision is installed")
        folder = shutil.copytree(onevision, tmp_path / "fast")
        (folder / "preprocessor_config.json").write_text(
            '{"image_processor_type": "Sam2ImageProcessor"}'
        )
        with pytest.raises(UserError, match=r"needs torchvision.*spqr-checks\[vlm\]"):
            made(folder)


def test_the_recipe_is_had_without_torch(onevision: Path) -> None:
    code = (
        "import sys; from spqr_checks.judges.registry import judge_recipe; "
        f"judge_recipe('llavaguard={onevision}', 0.5, ('hazard',)); "
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _head(weights: dict[str, torch.Tensor]) -> str:
    (name,) = [name for name in weights if name.endswith("lm_head.weight")]
    return name


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
