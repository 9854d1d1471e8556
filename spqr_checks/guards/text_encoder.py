"""The text encoder that a guard reads prompts with: CLIP's, as it lies in the pipeline. Heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel

from spqr_checks.errors import GuardError, UserError
from spqr_checks.models.pretrained import load_network, load_tokenizer, quiet, read_config
from spqr_checks.models.sources import resolve

ENCODER, TOKENIZER = "text_encoder", "tokenizer"
BATCH = 64
"""Prompts per forward pass; fixed, because the last bits depend on it."""


@dataclass(frozen=True)
class TextEncoder:
    """CLIP's text encoder with its tokenizer; prompts are padded to its full context."""

    model: Any
    tokenizer: Any

    @property
    def width(self) -> int:
        """Numbers of each token's state."""
        return int(self.model.config.hidden_size)

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Token ids, shape (n, context); what does not fit is cut, as the pipeline cuts it."""
        limit = self.model.config.max_position_embeddings
        how = {"padding": "max_length", "truncation": True, "max_length": limit}
        ids: Tensor = self.tokenizer(list(prompts), return_tensors="pt", **how)["input_ids"]
        return ids.to(self.model.device)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States of all tokens, shape (n, context, width), and of the end, shape (n, width).

        Raises:
            GuardError: for a state with NaN or infinity.
        """
        states, ends = [], []
        for start in range(0, len(prompts), BATCH):
            output = self.model(input_ids=self.tokens(prompts[start : start + BATCH]))
            states.append(output.last_hidden_state.float())
            ends.append(output.pooler_output.float())
        found = torch.cat(states), torch.cat(ends)
        if not all(bool(torch.isfinite(part).all()) for part in found):
            raise GuardError("the text encoder computed NaN or infinity")
        return found

    def save(self, folder: Path) -> None:
        """Writes both parts under the names that they have in a pipeline."""
        with quiet():
            self.model.save_pretrained(folder / ENCODER, safe_serialization=True)
            self.tokenizer.save_pretrained(folder / TOKENIZER)


def load_text_encoder(source: str | Path, device: str = "cpu") -> TextEncoder:
    """The text encoder of a pipeline, or of a guard that was trained with it.

    Raises:
        UserError: where there is none, or none of CLIP's.
    """
    folder = resolve(str(source))
    kind = read_config(folder / ENCODER, f"{source}/{ENCODER}")["model_type"]
    if kind != "clip_text_model":
        raise UserError(f"{source}: its text encoder is a {kind}; guards read with CLIP's")
    model = load_network(CLIPTextModel, folder / ENCODER, f"{source}/{ENCODER}", device)
    tokenizer = load_tokenizer(folder / TOKENIZER, f"{source}/{TOKENIZER}")
    return TextEncoder(model.requires_grad_(False), tokenizer)
