"""Judge by ShieldGemma 2: a vision-language model that is asked whether an image breaks a policy.

Zeng et al., "ShieldGemma 2: Robust and Tractable Image Content Moderation" (arXiv 2504.01081).
Every policy is asked alone; its probability is the share of ``Yes`` among ``Yes`` and ``No``, and
that of the image is the highest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from spqr_checks.errors import UserError
from spqr_checks.judges.base import Judge, JudgeKind, JudgeRequest, Verdict
from spqr_checks.judges.policy import AskedOptions, about, chosen, policy_table
from spqr_checks.user_files import read_object

if TYPE_CHECKING:
    from PIL.Image import Image

    from spqr_checks.judges.vision_language import Answers


def _names(value: object) -> object:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


class Options(AskedOptions):
    """How it is asked.

    Attributes:
        policies: names of those to ask about; all that the model comes with and all of one's own
            if none is named.
        own: TOML file of further policies, name = "text"; ``{concepts}`` in a text stands for the
            run's concepts.
    """

    policies: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    own: Annotated[dict[str, str], BeforeValidator(policy_table)] = {}


@dataclass(frozen=True)
class ShieldGemma:
    """P(unsafe) is the highest share of Yes over the policies."""

    model: Any
    processor: Any
    policies: Mapping[str, str]
    answers: Answers
    options: Options
    request: JudgeRequest

    def judge(self, images: list[Image]) -> list[Verdict]:
        batch, request = self.options.batch, self.request
        return [
            Verdict.whole(max(shares), request.threshold, request.concepts)
            for start in range(0, len(images), batch)
            for shares in self.shares(images[start : start + batch])
        ]

    def shares(self, images: Sequence[Image]) -> list[list[float]]:
        """The share of Yes, one for each policy of each image.

        Raises:
            JudgeError: if any of them cannot be had.
        """
        from spqr_checks.judges.vision_language import image_features, last_logits, pixels_of

        # rows are image by image, and every image is there once per policy
        n, gemma = len(self.policies), self.model.model
        made = pixels_of(self.processor, images, self.model, copies=n)
        seen = image_features(gemma, pixel_values=made["pixel_values"])
        rows = [
            ids[mask.bool()].tolist()
            for ids, mask in zip(made["input_ids"], made["attention_mask"], strict=True)
        ]
        shown = [feature for feature in seen for _ in range(n)]
        token = self.model.config.image_token_id
        logits = last_logits(gemma, rows, shown, token, positions=1, typed=True)
        least = self.options.min_mass
        shares = [self.answers.unsafe_probability(row[None], least) for row in logits]
        return [shares[start : start + n] for start in range(0, len(shares), n)]


def _load(request: JudgeRequest) -> Judge:
    """The judge, ready to answer.

    Raises:
        UserError: for weights that cannot be loaded, another type of model, an unknown policy, or
            a tokenizer that does not fit the model.
    """
    from transformers import ShieldGemma2ForImageClassification, ShieldGemma2Processor
    from transformers.models.shieldgemma2 import processing_shieldgemma2

    from spqr_checks.judges import vision_language as vlm
    from spqr_checks.models.pretrained import load_image_processor

    source, options = request.source, request.options
    assert isinstance(options, Options)
    classes = {"shieldgemma2": ShieldGemma2ForImageClassification}
    model, folder = vlm.load_model(request, classes, "a ShieldGemma 2 model", options.dtype)
    tokenizer, template = vlm.load_chat_tokenizer(folder, source)
    answers = vlm.Answers((model.yes_token_index,), (model.no_token_index,))
    for word, (token,) in (("Yes", answers.unsafe), ("No", answers.safe)):
        if tokenizer.convert_tokens_to_ids(word) != token:
            raise UserError(f"{source}: token {token} is not {word!r}; the tokenizer is another's")
    path = folder / "processor_config.json"
    own = read_object(path).get("policy_definitions") if path.is_file() else None
    known = dict(own or processing_shieldgemma2.DEFAULT_SHIELDGEMMA2_POLICIES)
    policies = chosen(known | options.own, options.policies, source)
    try:
        processor = ShieldGemma2Processor(
            load_image_processor(folder, source),
            tokenizer,
            chat_template=template,
            image_seq_length=model.config.mm_tokens_per_image,
            policy_definitions={
                name: about(text, request.concepts) for name, text in policies.items()
            },
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{source}: no processor of ShieldGemma 2: {error}") from error
    if tokenizer.image_token_id != model.config.image_token_id:
        raise UserError(f"{source}: tokenizer and model have different tokens for an image")
    return ShieldGemma(model, processor, policies, answers, options, request)


JUDGE = JudgeKind(Options, _load, extra="vlm", loads_on_meta=True)
