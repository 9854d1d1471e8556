"""Judge by LlavaGuard: a vision-language model that rates an image against a policy.

Helff et al., "LlavaGuard: An Open VLM-based Framework for Safeguarding Vision Datasets and Models"
(arXiv 2406.05113). The model answers with JSON that begins with the rating; that beginning is put
into its mouth, and P(unsafe) is read off the probabilities of ``Unsafe`` and ``Safe``. The wording
of the packaged policy is ours; the authors' may be given as a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.base import Judge, JudgeKind, JudgeRequest, Verdict
from spqr_checks.judges.policy import AskedOptions, about, policy_text

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from spqr_checks.judges.vision_language import Answers

_RATINGS = ("Unsafe", "Safe")


class Options(AskedOptions):
    """How it is asked.

    Attributes:
        policy: file with the whole instruction; ``{concepts}`` stands for the run's concepts.
        prefix: what the answer begins with, up to the rating.
    """

    policy: Annotated[str, BeforeValidator(policy_text), Field(validate_default=True)] = ""
    prefix: Annotated[str, Field(min_length=1)] = '{\n    "rating": "'


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

    def judge(self, images: list[Image]) -> list[Verdict]:
        batch, request = self.options.batch, self.request
        return [
            Verdict.whole(probability, request.threshold, request.concepts)
            for start in range(0, len(images), batch)
            for probability in self._probabilities(images[start : start + batch])
        ]

    def _probabilities(self, images: Sequence[Image]) -> list[float]:
        from spqr_checks.judges.vision_language import last_logits

        token, tails = self.model.config.image_token_id, self.answers.tails
        features, place = self._features(images), self.prompt.index(token)
        before, after = self.prompt[:place], self.prompt[place + 1 :]
        rows = [
            [*before, *[token] * len(feature), *after, *tail]
            for feature in features
            for tail in tails
        ]
        shown = [feature for feature in features for _ in tails]
        logits = last_logits(self.model, rows, shown, token, self.answers.positions)
        of_images = logits.view(len(images), len(tails), *logits.shape[1:])
        return [self.answers.unsafe_probability(one, self.options.min_mass) for one in of_images]

    def _features(self, images: Sequence[Image]) -> list[torch.Tensor]:
        from spqr_checks.judges.vision_language import image_features, pixels_of

        made = pixels_of(self.processor, images, self.model)
        sizes = {}
        if self.model.config.model_type == "llava_onevision":
            sizes = {"image_sizes": made["image_sizes"]}
        features = image_features(self.model, pixel_values=made["pixel_values"], **sizes)
        if len(features) != len(images):
            raise JudgeError(f"features of {len(features)} images for {len(images)}")
        return features


def _load(request: JudgeRequest) -> Judge:
    """LLaVA-OneVision (v1.2) and LLaVA (v1.0, v1.1).

    Raises:
        UserError: for weights that cannot be loaded, another type of model, or a tokenizer and
            template with which the rating cannot be asked for.
    """
    from transformers import LlavaForConditionalGeneration, LlavaOnevisionForConditionalGeneration

    from spqr_checks.judges import vision_language as vlm
    from spqr_checks.models.pretrained import load_image_processor

    source, options = request.source, request.options
    assert isinstance(options, Options)
    classes = {
        "llava_onevision": LlavaOnevisionForConditionalGeneration,
        "llava": LlavaForConditionalGeneration,
    }
    model, folder = vlm.load_model(request, classes, "a LlavaGuard model", options.dtype)
    tokenizer, template = vlm.load_chat_tokenizer(folder, source)
    processor = load_image_processor(folder, source)
    policy = about(options.policy, request.concepts)
    text = _asked(tokenizer, template, policy, source) + options.prefix
    if model.config.get_text_config().vocab_size < len(tokenizer):
        raise UserError(f"{source}: the tokenizer has more tokens than the model knows")
    prompt = _ids(tokenizer, text)
    if (n := prompt.count(model.config.image_token_id)) != 1:
        raise UserError(
            f"{source}: its chat template puts {n} images into a prompt with one; "
            "the processor's chat_template.json belongs to the model"
        )
    answers = vlm.Answers(*(_behind(tokenizer, text, prompt, word, source) for word in _RATINGS))
    return LlavaGuard(model, processor, prompt, answers, options, request)


def _asked(tokenizer: Any, template: str, policy: str, source: str) -> str:
    """The conversation up to where the answer begins."""
    content = [{"type": "image"}, {"type": "text", "text": policy}]
    asked = [{"role": "user", "content": content}]
    how = {"chat_template": template, "add_generation_prompt": True, "tokenize": False}
    try:
        text = str(tokenizer.apply_chat_template(asked, **how))
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


JUDGE = JudgeKind(Options, _load, extra="vlm", loads_on_meta=True)
