"""A model that sees an image is asked whether it shows the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForVisualQuestionAnswering,
    AutoProcessor,
)

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.metrics.backbones.yes_no import answer_tokens, yes_probability
from spqr_checks.metrics.preprocessing import load_network, quiet, read_config
from spqr_checks.models import sources

QUESTION = 'Does this figure show "{text}"? Please answer yes or no.'
_PLAIN = {"BlipForQuestionAnswering"}
"""Architectures that take an image and a question as they are, without a conversation."""


@dataclass(frozen=True)
class Questioner:
    """A model with its processor; one question at a time, so that none depends on another."""

    model: Any
    processor: Any
    chats: bool
    yes: list[int]
    no: list[int]
    device: str

    @torch.inference_mode()
    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """P(yes) of each image and prompt. Raises JudgeError as `yes_probability`."""
        return [
            yes_probability(self._first_logits(image, prompt), self.yes, self.no, f"image {index}")
            for index, (image, prompt) in enumerate(zip(images, prompts, strict=True))
        ]

    def _first_logits(self, image: Image.Image, prompt: str) -> torch.Tensor:
        inputs = self._inputs(image.convert("RGB"), QUESTION.format(text=prompt))
        with quiet():
            answer = self.model.generate(
                **inputs.to(self.device, self.model.dtype),
                max_new_tokens=1,
                do_sample=False,
                num_beams=1,
                output_logits=True,
                return_dict_in_generate=True,
            )
        if not answer.logits or answer.logits[0].shape[0] != 1:
            raise JudgeError("the model gave no answer")
        logits: torch.Tensor = answer.logits[0][0].float().cpu()
        return logits

    def _inputs(self, image: Image.Image, question: str) -> Any:
        if not self.chats:
            return self.processor(images=image, text=question, return_tensors="pt")
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,  # a prompt must not end its own message
        )


def load_questioner(source: str, device: str) -> Questioner:
    """The model in a folder or of a Hub id, in the precision of its weights.

    Raises:
        UserError: if it cannot be loaded, has no chat template, or no tokens for yes and no.
    """
    folder = sources.resolve(source)
    architectures = read_config(folder, source).get("architectures") or [""]
    plain = architectures[0] in _PLAIN
    kind = AutoModelForVisualQuestionAnswering if plain else AutoModelForImageTextToText
    model = load_network(kind, folder, source, device, dtype="auto")
    try:
        with quiet():
            processor = AutoProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # any failure to load ends here, as a message
        raise UserError(f"{source}: its processor cannot be loaded: {error}") from error
    if not plain and not getattr(processor, "chat_template", None):
        raise UserError(f"{source}: it has no chat template; choose an instruction-tuned model")
    yes, no = answer_tokens(processor.tokenizer, source)
    return Questioner(model, processor, not plain, yes, no, device)
