"""One CLIP for everything that needs one: unit-norm embeddings of images and texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel

from spqr_checks.errors import JudgeError, UserError
from spqr_checks.hashing import digest
from spqr_checks.metrics.preprocessing import (
    BATCH,
    load_image_processor,
    load_network,
    pixel_batches,
    quiet,
)
from spqr_checks.models import sources


@dataclass(frozen=True)
class Clip:
    """A CLIP model with its tokenizer and image preprocessing."""

    model: Any
    tokenizer: Any
    processor: Any
    device: str

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
            features = self.model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
            parts.append(_features(features))
        return self._unit_norm(parts, len(texts), "texts")

    def _unit_norm(self, parts: list[torch.Tensor], n: int, what: str) -> torch.Tensor:
        width = self.model.config.projection_dim
        raw = torch.cat([part.float().cpu() for part in parts]) if parts else torch.empty(0, width)
        unit: torch.Tensor = raw / raw.norm(dim=-1, keepdim=True)
        if unit.shape != (n, width):
            raise JudgeError(f"CLIP gave embeddings of shape {tuple(unit.shape)} for {n} {what}")
        if not torch.isfinite(unit).all():
            raise JudgeError(f"CLIP gave an embedding of zero, NaN or infinity for some {what}")
        return unit


def _features(output: Any) -> torch.Tensor:
    """Projected features; transformers 5 wraps them in an output object."""
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return features


def load_clip(source: str, device: str = "cpu") -> Clip:
    """The CLIP model of a source; loaded once per process and content.

    Args:
        source: directory or Hub id of a transformers ``CLIPModel``, see ``models.sources``.
        device: where it computes.

    Raises:
        UserError: if it is missing, incomplete or another kind of model.
    """
    return _load(source, digest(sources.source_recipe(source)), device)


@lru_cache(maxsize=2)
def _load(source: str, content: str, device: str) -> Clip:
    """``content`` is part of the key only: a changed directory is loaded anew."""
    folder = sources.resolve(source)
    kind = _model_type(folder, source)
    if kind != "clip":
        raise UserError(f"{source}: a {kind} model; a CLIP model (model_type clip) is needed here")
    model = load_network(CLIPModel, folder, source, device)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # any failure to load ends here, as a message
        raise UserError(f"{source}: its tokenizer cannot be loaded: {error}") from error
    size = model.config.text_config.vocab_size
    if len(tokenizer) > size:
        raise UserError(
            f"{source}: the tokenizer has {len(tokenizer)} tokens but the model knows {size}"
        )
    return Clip(model, tokenizer, load_image_processor(folder, source), device)


def _model_type(folder: Path, source: str) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: no readable config.json of a CLIP model: {error}") from error
