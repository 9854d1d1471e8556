"""One CLIP for everything that needs one: unit-norm embeddings of images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPModel, SiglipModel

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.hashing import digest
from spqr_checks.models import sources
from spqr_checks.models.pretrained import (
    BATCH,
    load_image_processor,
    load_network,
    load_tokenizer,
    pixel_batches,
    read_config,
)

_CLASSES = {"clip": CLIPModel, "siglip": SiglipModel}


@dataclass(frozen=True)
class Clip:
    """A CLIP or SigLIP model with its tokenizer and image preprocessing."""

    model: Any
    tokenizer: Any
    processor: Any
    device: str

    @property
    def kind(self) -> str:
        """``clip`` or ``siglip``."""
        return str(self.model.config.model_type)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        config = self.model.config
        return int(
            config.text_config.projection_size if self.kind == "siglip" else config.projection_dim
        )

    @property
    def logit_scale(self) -> float:
        """Factor from cosine to logit (the inverse temperature that CLIP was trained to)."""
        return float(self.model.logit_scale.detach().exp())

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Unit-norm image embeddings, float32 on the CPU, shape (n, d).

        Raises:
            JudgeError: for an embedding with NaN or infinity, or one missing.
        """
        parts = [
            _features(self.model.get_image_features(pixel_values=pixels))
            for pixels in pixel_batches(self.processor, images, self.device)
        ]
        return self._unit_norm(parts, len(images), "images")

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float64]:
        """`embed_images` in float64, as every extractor of features gives them."""
        return np.asarray(self.embed_images(images).numpy(), dtype=np.float64)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit-norm text embeddings, float32 on the CPU, shape (n, d).

        Texts longer than the model's context are cut at its end, as CLIP was trained. All are
        padded to the full context: an embedding does not depend on the texts beside it.

        Raises:
            JudgeError: for an embedding with NaN or infinity, or one missing.
        """
        limit = self.model.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(texts), BATCH):
            tokens = self.tokenizer(
                list(texts[start : start + BATCH]),
                padding="max_length",
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(self.device)
            # SigLIP was trained to attend to the padding
            masked = {} if self.kind == "siglip" else {"attention_mask": tokens["attention_mask"]}
            features = self.model.get_text_features(input_ids=tokens["input_ids"], **masked)
            parts.append(_features(features))
        return self._unit_norm(parts, len(texts), "texts")

    def _unit_norm(self, parts: list[torch.Tensor], n: int, what: str) -> torch.Tensor:
        width = self.width
        raw = torch.cat([part.float().cpu() for part in parts]) if parts else torch.empty(0, width)
        unit: torch.Tensor = raw / raw.norm(dim=-1, keepdim=True)
        if unit.shape != (n, width):
            raise JudgeError(f"CLIP gave embeddings of shape {tuple(unit.shape)} for {n} {what}")
        if not torch.isfinite(unit).all():
            raise JudgeError(f"CLIP gave an embedding of zero, NaN or infinity for some {what}")
        return unit


@dataclass(frozen=True)
class Cosines:
    """The cosine of each image's embedding with that of its prompt.

    Prompts are cut at the end of the model's context where longer.

    Attributes:
        logits: whether cosines are multiplied by the model's logit scale.
    """

    clip: Clip
    logits: bool = False

    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        seen = self.clip.embed_images(images).double()
        said = self.clip.embed_texts(prompts).double()
        factor = self.clip.logit_scale if self.logits else 1.0
        scaled: list[float] = (factor * (seen * said).sum(-1).clamp(-1, 1)).tolist()
        return scaled


def _features(output: Any) -> torch.Tensor:
    """Projected features; transformers 5 wraps them in an output object."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features


def load_clip(source: str, device: str = "cpu", kinds: tuple[str, ...] = ("clip",)) -> Clip:
    """The CLIP model of a source; loaded once per process and content.

    Args:
        source: directory or Hub id of a transformers ``CLIPModel``, see ``models.sources``.
        device: where it computes.
        kinds: model types that will do; ``siglip`` is known as well.

    Raises:
        UserError: if it is missing, incomplete or another kind of model.
    """
    content = digest(sources.source_recipe(source))
    kind = str(read_config(sources.resolve(source), source)["model_type"])
    if kind not in kinds:
        raise UserError(f"{source}: a {kind} model; a CLIP model (model_type clip) is needed here")
    return _load(source, content, device, kind)


def forget() -> None:
    """Drops the models that are kept."""
    _load.cache_clear()


@lru_cache(maxsize=2)
def _load(source: str, content: str, device: str, kind: str) -> Clip:
    """``content`` is part of the key only: a changed directory is loaded anew."""
    folder = sources.resolve(source)
    model = load_network(_CLASSES[kind], folder, source, device)
    tokenizer = load_tokenizer(folder, source)
    size = model.config.text_config.vocab_size
    if len(tokenizer) > size:
        raise UserError(
            f"{source}: the tokenizer has {len(tokenizer)} tokens but the model knows {size}"
        )
    return Clip(model, tokenizer, load_image_processor(folder, source), device)
