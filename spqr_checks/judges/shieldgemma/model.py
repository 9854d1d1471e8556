"""ShieldGemma 2: Gemma 3 that answers a policy with Yes or No."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL.Image import Image
from transformers import ShieldGemma2ForImageClassification, ShieldGemma2Processor
from transformers.models.shieldgemma2.processing_shieldgemma2 import DEFAULT_SHIELDGEMMA2_POLICIES

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.backends.answers import Answers, whole_image
from spqr_checks.judges.backends.policy import about, chosen
from spqr_checks.judges.backends.vision_language import (
    image_features,
    last_logits,
    load_model,
    load_processor,
    load_tokenizer,
    read_json,
)
from spqr_checks.judges.base import JudgeRequest, Verdict

if TYPE_CHECKING:
    from spqr_checks.judges.shieldgemma.options import Options

_CLASSES = {"shieldgemma2": ShieldGemma2ForImageClassification}


@dataclass(frozen=True)
class ShieldGemma:
    """P(unsafe) is the highest share of Yes over the policies."""

    model: Any
    processor: Any
    policies: Mapping[str, str]
    answers: Answers
    options: Options
    request: JudgeRequest

    @torch.inference_mode()
    def judge(self, images: list[Image]) -> list[Verdict]:
        batch, request = self.options.batch, self.request
        return [
            whole_image(max(shares), request.threshold, request.concepts)
            for start in range(0, len(images), batch)
            for shares in self.shares(images[start : start + batch])
        ]

    @torch.inference_mode()
    def shares(self, images: Sequence[Image]) -> list[list[float]]:
        """The share of Yes, one for each policy of each image.

        Raises:
            JudgeError: if any of them cannot be had.
        """
        n = len(self.policies)
        made = self.processor(
            images=[image.convert("RGB") for image in images], return_tensors="pt"
        )
        pixels = made["pixel_values"]
        if len(pixels) != n * len(images) or not torch.isfinite(pixels).all():
            raise JudgeError(
                f"preprocessing turned {len(images)} images under {n} policies into "
                f"{len(pixels)}, or into NaN"
            )
        # rows are image by image, and every image is there once per policy
        seen = image_features(
            self.model.model, pixel_values=pixels[::n].to(self.model.device, self.model.dtype)
        )
        rows = [
            ids[mask.bool()].tolist()
            for ids, mask in zip(made["input_ids"], made["attention_mask"], strict=True)
        ]
        logits = last_logits(
            self.model.model,
            rows,
            [feature for feature in seen for _ in range(n)],
            self.model.config.image_token_id,
            positions=1,
            typed=True,
        )
        least = self.options.min_mass
        shares = [self.answers.unsafe_probability(row[None], least) for row in logits]
        return [shares[start : start + n] for start in range(0, len(shares), n)]


def load_shieldgemma(request: JudgeRequest, options: Options) -> ShieldGemma:
    """The judge, ready to answer.

    Raises:
        UserError: for weights that cannot be loaded, another type of model, an unknown policy, or
            a tokenizer that does not fit the model.
    """
    source = request.source
    model, folder = load_model(
        source, _CLASSES, "a ShieldGemma 2 model", options.dtype, request.device
    )
    tokenizer, template = load_tokenizer(folder, source)
    answers = Answers((model.yes_token_index,), (model.no_token_index,))
    for word, (token,) in (("Yes", answers.unsafe), ("No", answers.safe)):
        if tokenizer.convert_tokens_to_ids(word) != token:
            raise UserError(f"{source}: token {token} is not {word!r}; the tokenizer is another's")
    policies = chosen(_policies(folder, source) | options.own, options.policies, source)
    try:
        processor = ShieldGemma2Processor(
            load_processor(folder, source),
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


def _policies(folder: Path, source: str) -> dict[str, str]:
    """The policies that the model comes with."""
    path = folder / "processor_config.json"
    found = read_json(path, source).get("policy_definitions") if path.is_file() else None
    return dict(found or DEFAULT_SHIELDGEMMA2_POLICIES)
