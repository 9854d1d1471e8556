"""Loading and asking of vision-language models: one image in a prompt, logits at its end. Heavy.

P(unsafe) is read off the probabilities of a model's two answers; nothing is generated or parsed. A
model that was asked for a rating gives every text a probability. Read off are the two ratings at
the place where one must stand. What they leave over are other texts, which are no rating.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.judges.base import JudgeRequest
from spqr_checks.models import sources
from spqr_checks.models.pretrained import load_network, load_tokenizer, precision
from spqr_checks.user_files import read_object

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """The tokens of both ratings, as they follow the same prompt."""

    unsafe: Tokens
    safe: Tokens

    @property
    def tails(self) -> tuple[Tokens, ...]:
        """What stands behind the prompt so that every token's probability can be read.

        Nothing where both ratings are one token; else each rating without its last token.
        """
        return tuple(dict.fromkeys((self.unsafe[:-1], self.safe[:-1])))

    @property
    def positions(self) -> int:
        """Last positions of a row that are read."""
        return max(len(tail) for tail in self.tails) + 1

    def unsafe_probability(self, logits: torch.Tensor, min_mass: float) -> float:
        """P(unsafe | one of the two) of one prompt.

        Args:
            logits: of the last positions, one row per tail, shape (tails, positions, tokens).
            min_mass: least probability of the two together.

        Raises:
            JudgeError: for NaN or infinite logits, and where both ratings together are less
                likely than that: the model would have written something else.
        """
        if logits.shape[:2] != (len(self.tails), self.positions):
            raise JudgeError(f"the model gave logits of shape {tuple(logits.shape)}")
        if not torch.isfinite(logits).all():
            raise JudgeError("the model gave NaN or infinite logits")
        shares = logits.double().log_softmax(-1)
        unsafe, safe = (float(self._log(shares, one).exp()) for one in (self.unsafe, self.safe))
        mass = unsafe + safe
        if not mass >= min_mass:  # also refuses NaN
            raise JudgeError(
                f"unparsable answer: a rating has a probability of {mass:.3g}; "
                f"at least {min_mass:g} is wanted"
            )
        return min(1.0, unsafe / mass)

    def _log(self, shares: torch.Tensor, answer: Tokens) -> torch.Tensor:
        row = self.tails.index(answer[:-1])
        first = self.positions - len(answer)
        return torch.stack([shares[row, first + i, t] for i, t in enumerate(answer)]).sum()


def load_model(
    request: JudgeRequest, classes: Mapping[str, Any], wanted: str, dtype: str
) -> tuple[Any, Path]:
    """The model of a judge's source and its folder.

    Args:
        classes: transformers class by ``model_type`` of config.json.
        wanted: what it should be; only for messages.
        dtype: ``auto`` takes the weights' own.

    Raises:
        UserError: for another type of model, and as `load_network`.
    """
    source = request.source
    folder = sources.resolve(source)
    config = read_object(folder / "config.json")
    kind = str(config.get("model_type"))
    if kind not in classes or "vision_config" not in config:
        raise UserError(
            f"{source}: a {kind} model; {wanted} in the format of transformers is needed here "
            f"(model_type {' or '.join(classes)}; converted weights often end in -hf)"
        )
    model = load_network(classes[kind], folder, source, request.device, precision(dtype))
    return model.requires_grad_(False), folder


def load_chat_tokenizer(folder: Path, source: str) -> tuple[Any, str]:
    """The tokenizer and the chat template, the processor's where there is one.

    Raises:
        UserError: if there is none of either.
    """
    tokenizer = load_tokenizer(folder, source)
    template = tokenizer.chat_template
    legacy = folder / "chat_template.json"
    if not (folder / "chat_template.jinja").is_file() and legacy.is_file():
        template = read_object(legacy).get("chat_template")
    if not isinstance(template, str) or not template:
        raise UserError(f"{source}: it has no chat template (chat_template.json or .jinja)")
    return tokenizer, template


def pixels_of(
    processor: Any, images: Sequence[Image], model: Any, copies: int = 1
) -> dict[str, Any]:
    """What the processor makes of images, on the model's device and in its precision.

    Args:
        copies: how often the processor gives every image, next to each other.

    Raises:
        JudgeError: if images get lost or turn into NaN.
    """
    made = processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
    pixels = made["pixel_values"]
    if len(pixels) != copies * len(images) or not torch.isfinite(pixels).all():
        raise JudgeError(
            f"preprocessing turned {len(images)} images, {copies} times each, into {len(pixels)}, "
            "or into NaN"
        )
    pixels = pixels[::copies]
    return {**made, "pixel_values": pixels.to(model.device, model.dtype)}


@torch.inference_mode()
def image_features(model: Any, **inputs: Any) -> list[torch.Tensor]:
    """What stands for each image in a prompt: embeddings, shape (tokens, width)."""
    found = model.get_image_features(**inputs)
    # transformers 5 wraps them in an output object
    return list(found if isinstance(found, (list, tuple, torch.Tensor)) else found.pooler_output)


@torch.inference_mode()
def last_logits(
    model: Any,
    rows: Sequence[Sequence[int]],
    features: Sequence[torch.Tensor],
    image_token: int,
    positions: int,
    typed: bool = False,
) -> torch.Tensor:
    """Logits of the last positions of each row, shape (rows, positions, tokens).

    Rows are padded on the left, so that they end together.

    Args:
        rows: token ids; where ``image_token`` stands, in all rows together, the features go.
        typed: whether the model is told which tokens are an image (Gemma 3 attends among those
            in both directions).

    Raises:
        JudgeError: if tokens and features do not match, or a row is too long for the model.
    """
    longest = max(map(len, rows))
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and longest > context:
        raise JudgeError(
            f"{longest} tokens of image and policy do not fit the context of {context}"
        )
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    ids, mask = ids.to(model.device), mask.to(model.device)
    shown = (ids == image_token) & mask.bool()
    if int(shown.sum()) != sum(map(len, features)):
        raise JudgeError(f"{int(shown.sum())} image tokens for {sum(map(len, features))} features")
    embedded = model.get_input_embeddings()(ids.masked_fill(shown, 0))
    embedded = embedded.masked_scatter(shown[..., None], torch.cat(list(features)).to(embedded))
    types = {"token_type_ids": shown.long()} if typed else {}
    logits: torch.Tensor = model(
        inputs_embeds=embedded,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        logits_to_keep=positions,
        use_cache=False,
        **types,
    ).logits
    return logits
