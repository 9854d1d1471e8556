"""LlavaGuard: LLaVA models that answer a policy with a rating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image
from transformers import LlavaForConditionalGeneration, LlavaOnevisionForConditionalGeneration

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.backends.answers import Answers, whole_image
from spqr_checks.judges.backends.policy import about
from spqr_checks.judges.backends.vision_language import (
    image_features,
    last_logits,
    load_model,
    load_processor,
    load_tokenizer,
    pixels_of,
)
from spqr_checks.judges.base import JudgeRequest, Verdict

if TYPE_CHECKING:
    from spqr_checks.judges.llavaguard.options import Options

_CLASSES = {
    "llava_onevision": LlavaOnevisionForConditionalGeneration,
    "llava": LlavaForConditionalGeneration,
}
_RATINGS = ("Unsafe", "Safe")


@dataclass(frozen=True)
class LlavaGuard:
    """P(unsafe) is the share of ``Unsafe`` among both ratings.

    Attributes:
        prompt: tokens up to the rating; one of them stands for the image.
    """

    model: Any
    processor: Any
    prompt: tuple[int, ...]
    answers: Answers
    options: Options
    request: JudgeRequest

    @torch.inference_mode()
    def judge(self, images: list[Image]) -> list[Verdict]:
        batch, request = self.options.batch, self.request
        return [
            whole_image(probability, request.threshold, request.concepts)
            for start in range(0, len(images), batch)
            for probability in self._probabilities(images[start : start + batch])
        ]

    def _probabilities(self, images: Sequence[Image]) -> list[float]:
        token, tails = self.model.config.image_token_id, self.answers.tails
        features = self._features(images)
        rows = [
            [*self._expanded(len(feature), token), *tail] for feature in features for tail in tails
        ]
        shown = [feature for feature in features for _ in tails]
        logits = last_logits(self.model, rows, shown, token, self.answers.positions)
        of_images = logits.view(len(images), len(tails), *logits.shape[1:])
        return [self.answers.unsafe_probability(one, self.options.min_mass) for one in of_images]

    def _features(self, images: Sequence[Image]) -> list[torch.Tensor]:
        made = pixels_of(self.processor, images, self.model)
        sizes = {}
        if self.model.config.model_type == "llava_onevision":
            sizes = {"image_sizes": made["image_sizes"]}
        features = image_features(self.model, pixel_values=made["pixel_values"], **sizes)
        if len(features) != len(images):
            raise JudgeError(f"features of {len(features)} images for {len(images)}")
        return features

    def _expanded(self, n: int, token: int) -> list[int]:
        place = self.prompt.index(token)
        return [*self.prompt[:place], *[token] * n, *self.prompt[place + 1 :]]


def load_llavaguard(request: JudgeRequest, options: Options) -> LlavaGuard:
    """The judge, ready to answer.

    Raises:
        UserError: for weights that cannot be loaded, another type of model, or a tokenizer and
            template with which the rating cannot be asked for.
    """
    source = request.source
    model, folder = load_model(
        source, _CLASSES, "a LlavaGuard model", options.dtype, request.device
    )
    tokenizer, template = load_tokenizer(folder, source)
    processor = load_processor(folder, source)
    policy = about(options.policy, request.concepts)
    text = _asked(tokenizer, template, policy, source) + options.prefix
    if model.config.get_text_config().vocab_size < len(tokenizer):
        raise UserError(f"{source}: the tokenizer has more tokens than the model knows")
    prompt = _ids(tokenizer, text)
    if prompt.count(model.config.image_token_id) != 1:
        raise UserError(
            f"{source}: its chat template puts {prompt.count(model.config.image_token_id)} images "
            "into a prompt with one; the processor's chat_template.json belongs to the model"
        )
    answers = Answers(*(_behind(tokenizer, text, prompt, word, source) for word in _RATINGS))
    return LlavaGuard(model, processor, prompt, answers, options, request)


def _asked(tokenizer: Any, template: str, policy: str, source: str) -> str:
    """The conversation up to where the answer begins."""
    content = [{"type": "image"}, {"type": "text", "text": policy}]
    try:
        text = str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=template,
                add_generation_prompt=True,
                tokenize=False,
            )
        )
    except Exception as error:  # templates are programs and fail in any way
        raise UserError(f"{source}: its chat template fails: {error}") from error
    # the templates of LLaVA 1.5 end with "ASSISTANT:", after which the model was trained on a space
    return text if text[-1:].isspace() else f"{text} "


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    return tuple(tokenizer(text, add_special_tokens=not begun)["input_ids"])


def _behind(
    tokenizer: Any, text: str, prompt: tuple[int, ...], word: str, source: str
) -> tuple[int, ...]:
    """The tokens of a word behind the prompt."""
    whole = _ids(tokenizer, text + word)
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        raise UserError(
            f"{source}: its tokenizer joins the end of the prefix and {word!r} in one token; "
            "set the option 'prefix' to end elsewhere"
        )
    return whole[len(prompt) :]
