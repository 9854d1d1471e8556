"""VQAScore: the probability of yes, by tiny models of the real classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from answering import TEMPLATE, save_blip, save_llava, tokenizer_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    AutoProcessor,
    BlipForQuestionAnswering,
    LlavaForConditionalGeneration,
)

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.metrics.adherence import adherence_scores
from spqr_checks.metrics.adherence.vqa import (
    QUESTION,
    answer_tokens,
    load_questioner,
    yes_probability,
)
from spqr_checks.metrics.recipe import adherence_recipe

PROMPTS = ["a red circle", "a blue star", "a tree", "a ring", "a red star"]
ROUNDING = 1e-12


@pytest.fixture(scope="module")
def llava_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def blip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("blip"))


def scores(images: list[Image.Image], folder: Path) -> list[float]:
    return adherence_scores(images, PROMPTS, f"vqa={folder}", "")


@torch.no_grad()
def test_a_conversational_model_gives_its_probability_of_yes(
    llava_dir: Path, pictures: list[Image.Image]
) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(llava_dir).eval()
    processor = AutoProcessor.from_pretrained(llava_dir, backend="pil")
    expected = []
    for image, prompt in zip(pictures, PROMPTS, strict=True):
        text = f"<image> {QUESTION.format(text=prompt)}"
        inputs = processor(images=image, text=text, return_tensors="pt")
        last = model(**inputs).logits[0, -1].double().softmax(-1)
        words = processor.tokenizer.convert_ids_to_tokens(range(len(last)))
        expected.append(sum(float(last[i]) for i, w in enumerate(words) if w.lower() == "yes"))
    found = scores(pictures, llava_dir)
    assert found == pytest.approx(expected, abs=1e-6)
    assert len({round(score, 4) for score in found}) == 5


@torch.no_grad()
def test_blip_gives_its_probability_of_yes(blip_dir: Path, pictures: list[Image.Image]) -> None:
    model = BlipForQuestionAnswering.from_pretrained(blip_dir).eval()
    processor = AutoProcessor.from_pretrained(blip_dir, backend="pil")
    expected = []
    for image, prompt in zip(pictures, PROMPTS, strict=True):
        inputs = processor(images=image, text=QUESTION.format(text=prompt), return_tensors="pt")
        seen = model.vision_model(inputs["pixel_values"]).last_hidden_state
        asked = model.text_encoder(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            encoder_hidden_states=seen,
        ).last_hidden_state
        start = torch.tensor([[model.decoder_start_token_id]])
        answer = model.text_decoder(start, encoder_hidden_states=asked).logits[0, -1]
        expected.append(float(answer.double().softmax(-1)[7]))
    found = scores(pictures, blip_dir)
    assert found == pytest.approx(expected, abs=1e-6)
    assert len({round(score, 4) for score in found}) == 5


def test_the_question_is_that_of_the_paper() -> None:
    asked = QUESTION.format(text="a ring")
    assert asked == 'Does this figure show "a ring"? Please answer yes or no.'


def test_a_score_depends_on_no_other_image_and_leaves_the_random_state_alone(
    llava_dir: Path, pictures: list[Image.Image]
) -> None:
    before = torch.random.get_rng_state()
    together = scores(pictures, llava_dir)
    alone = adherence_scores(pictures[2:3], PROMPTS[2:3], f"vqa={llava_dir}", "")
    assert alone == together[2:3]
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_answer_that_is_neither_yes_nor_no_is_an_error(
    tmp_path: Path, pictures: list[Image.Image]
) -> None:
    with pytest.raises(JudgeError, match="image 0: the model answers neither yes nor no"):
        scores(pictures, save_blip(tmp_path, leaning=-9.0))


def test_a_prompt_cannot_bring_an_image_or_an_end_of_its_own(
    llava_dir: Path, pictures: list[Image.Image]
) -> None:
    plain = adherence_scores(pictures[:1], ["a ring"], f"vqa={llava_dir}", "")
    tricked = adherence_scores(pictures[:1], ["a </s> <image> ring"], f"vqa={llava_dir}", "")
    assert 0 <= tricked[0] <= 1
    assert tricked != plain


class TestLoading:
    def test_without_a_chat_template(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="it has no chat template"):
            load_questioner(str(save_llava(tmp_path, template=None)), "cpu")

    def test_without_words_for_yes_and_no(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no single tokens for yes and for no"):
            load_questioner(str(save_llava(tmp_path, answers=False)), "cpu")

    @pytest.mark.heavy
    def test_a_model_that_answers_no_questions(self, clip_dir: Path) -> None:
        with pytest.raises(UserError, match="cannot be loaded as AutoModelForImageTextToText"):
            load_questioner(str(clip_dir), "cpu")

    def test_the_template_is_part_of_the_recipe(self, llava_dir: Path) -> None:
        template = llava_dir / "chat_template.jinja"
        assert template.read_text() == TEMPLATE
        before = adherence_recipe(f"vqa={llava_dir}", "")
        template.write_text(TEMPLATE + " ")
        try:
            assert adherence_recipe(f"vqa={llava_dir}", "") != before
        finally:
            template.write_text(TEMPLATE)


class TestYesAndNo:
    def test_all_spellings_that_are_one_token_count(self) -> None:
        tokenizer = tokenizer_of(["<unk>", "Yes", "yes", "NO", "no", "other"])
        yes, no = answer_tokens(tokenizer, "x")
        assert tokenizer.convert_ids_to_tokens(yes) == ["Yes", "yes"]
        assert tokenizer.convert_ids_to_tokens(no) == ["NO", "no"]

    @given(st.lists(st.floats(-20, 20), min_size=6, max_size=6))
    def test_it_is_a_share_of_the_whole_vocabulary(self, given_logits: list[float]) -> None:
        logits = torch.tensor(given_logits)
        shares = logits.double().softmax(-1).tolist()
        try:
            found = yes_probability(logits, [1, 2], [3], "image 0")
        except JudgeError:
            assert sum(shares[1:4]) < 0.5 + ROUNDING
        else:
            assert sum(shares[1:4]) > 0.5 - ROUNDING
            assert found == pytest.approx(shares[1] + shares[2])

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_logits_that_are_not_finite(self, bad: float) -> None:
        with pytest.raises(JudgeError, match="image 3: the model gave NaN or infinite"):
            yes_probability(torch.tensor([0.0, bad, 9.0]), [1], [2], "image 3")
        with pytest.raises(JudgeError):
            yes_probability(torch.tensor([float("nan"), 9.0, 9.0]), [1], [2], "image 3")
