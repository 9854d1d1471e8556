"""VQAScore (Lin et al. 2024): how probable a model that sees the image finds the answer "Yes".

P("Yes" | image, 'Does this figure show "{prompt}"? Please answer yes or no.'), equation 2 there.
The paper takes the one token "Yes"; here the tokens of its spellings with and without capitals
and a space before are added up, as which of them a model uses is its tokenizer's affair. A model
whose first token is neither yes nor no with at least half of its probability has not answered,
which is an error.

Any transformers model of the kind image-text-to-text with a chat template, or BLIP's for visual
questions. It is a probability with a true zero, so that a ratio to the base is meaningful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.metrics.adherence import AdherenceKind
from spqr_checks.metrics.model_metrics import Needs
from spqr_checks.models import sources

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

QUESTION = 'Does this figure show "{text}"? Please answer yes or no.'
_PLAIN = {"BlipForQuestionAnswering"}
"""Architectures that take an image and a question as they are, without a conversation."""
_ANSWERED = 0.5
"""Least probability of yes and no together that counts as an answer; ours."""


@dataclass(frozen=True)
class Questioner:
    """A model with its processor; one question at a time, so that none depends on another."""

    model: Any
    processor: Any
    chats: bool
    yes: list[int]
    no: list[int]
    device: str

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """P(yes) of each image and prompt. Raises JudgeError as `yes_probability`."""
        return [
            yes_probability(self._first_logits(image, prompt), self.yes, self.no, f"image {index}")
            for index, (image, prompt) in enumerate(zip(images, prompts, strict=True))
        ]

    def _first_logits(self, image: Image, prompt: str) -> torch.Tensor:
        import torch

        from spqr_checks.models.pretrained import quiet

        inputs = self._inputs(image.convert("RGB"), QUESTION.format(text=prompt))
        with quiet(), torch.inference_mode():
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

    def _inputs(self, image: Image, question: str) -> Any:
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
    from transformers import (
        AutoModelForImageTextToText,
        AutoModelForVisualQuestionAnswering,
        AutoProcessor,
    )

    from spqr_checks.models.pretrained import load_beside, load_network, read_config

    folder = sources.resolve(source)
    architectures = read_config(folder, source).get("architectures") or [""]
    plain = architectures[0] in _PLAIN
    kind = AutoModelForVisualQuestionAnswering if plain else AutoModelForImageTextToText
    model = load_network(kind, folder, source, device, dtype="auto")
    failure = "its processor cannot be loaded"
    processor = load_beside(AutoProcessor, folder, source, failure, backend="pil")
    if not plain and not getattr(processor, "chat_template", None):
        raise UserError(f"{source}: it has no chat template; choose an instruction-tuned model")
    yes, no = answer_tokens(processor.tokenizer, source)
    return Questioner(model, processor, not plain, yes, no, device)


def answer_tokens(tokenizer: Any, source: str) -> tuple[list[int], list[int]]:
    """Ids of the tokens that say yes, and of those that say no.

    Raises:
        UserError: if the vocabulary lacks one of the answers as a single token.
    """
    yes, no = (_single_tokens(tokenizer, word) for word in ("yes", "no"))
    if not yes or not no or set(yes) & set(no):
        raise UserError(f"{source}: its tokenizer has no single tokens for yes and for no")
    return yes, no


def _single_tokens(tokenizer: Any, word: str) -> list[int]:
    """Of ``yes``, ``Yes`` and ``YES``, each with and without a space before it."""
    cased = (word, word.capitalize(), word.upper())
    spellings = (*cased, *(f" {each}" for each in cased))
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in spellings]
    return sorted({ids[0] for ids in encoded if len(ids) == 1} - {tokenizer.unk_token_id})


def yes_probability(logits: torch.Tensor, yes: list[int], no: list[int], what: str) -> float:
    """P(yes) over the whole vocabulary.

    Args:
        logits: of the first token of the answer, shape (vocabulary,).
        what: which image it is about, for messages.

    Raises:
        JudgeError: for logits that are not finite, or an answer that is neither yes nor no.
    """
    if logits.ndim != 1 or not logits[yes + no].isfinite().all() or logits.isnan().any():
        raise JudgeError(f"{what}: the model gave NaN or infinite logits")
    probability = logits.double().softmax(-1)
    said_yes, said_no = (float(probability[ids].sum()) for ids in (yes, no))
    if not said_yes + said_no >= _ANSWERED:
        raise JudgeError(
            f"{what}: the model answers neither yes nor no (probability {said_yes + said_no:.3f})"
        )
    return min(1.0, said_yes)


ADHERENCE = AdherenceKind("probability", load_questioner, Needs(loads_on_meta=True))
