"""A local chat model behind ``llm.Chat``: transformers, safetensors only, no code of the model's.

Heavy: import it where a model is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, digest
from spqr_checks.models.pretrained import load_tokenizer, quiet
from spqr_checks.tools.loading import load_model
from spqr_checks.tools.rewriting.llm import Message


@dataclass(frozen=True)
class LocalChat:
    """A chat model with its tokenizer and sampling settings.

    Attributes:
        source_recipe: digests of its files.
        temperature: 0 takes the likeliest token each time; else tokens are sampled.
        top_p: sampling is restricted to the likeliest tokens of this total probability.
    """

    source: str
    source_recipe: dict[str, Json]
    model: Any
    tokenizer: Any
    device: str
    max_new_tokens: int
    temperature: float
    top_p: float

    @property
    def recipe(self) -> dict[str, Json]:
        return {
            "model": self.source_recipe,
            "template": digest(str(self.tokenizer.chat_template)),
            "dtype": str(self.model.dtype),
            "device": self.device,
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "versions": {name: version(name) for name in ("torch", "transformers")},
        }

    @torch.inference_mode()
    def answer(self, messages: Sequence[Message], seed: int) -> str:
        """The model's next message; torch's random state is left as it was.

        Raises:
            UserError: if the conversation does not fit the model's context.
        """
        inputs = self._encode(messages)
        length = inputs["input_ids"].shape[-1]
        context = getattr(self.model.config, "max_position_embeddings", None)
        if context is not None and length + self.max_new_tokens > context:
            raise UserError(
                f"{self.source}: {length} tokens of instructions and {self.max_new_tokens} of "
                f"answer do not fit its context of {context}; choose another model"
            )
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            sampling = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p}
            sampling["top_k"] = 0  # no limit; the library's own is 50
        pad = self.tokenizer.pad_token_id
        cuda = [torch.device(self.device)] if self.device.startswith("cuda") else []
        with torch.random.fork_rng(cuda), quiet():
            torch.manual_seed(seed)
            tokens = self.model.generate(
                **inputs,
                **sampling,
                num_beams=1,
                max_new_tokens=self.max_new_tokens,
                pad_token_id=self.tokenizer.eos_token_id if pad is None else pad,
            )
        return str(self.tokenizer.decode(tokens[0, length:], skip_special_tokens=True))

    def _encode(self, messages: Sequence[Message]) -> dict[str, torch.Tensor]:
        encoded = self.tokenizer.apply_chat_template(
            list(messages),
            add_generation_prompt=True,
            tokenize=True,
            return_tensors="pt",
            return_dict=True,
            sanitize_control_tokens=True,  # a prompt must not end its own message
            enable_thinking=False,  # known to some templates, ignored by the others
        )
        return {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}


def load_chat(
    source: str,
    device: str = "cpu",
    dtype: str = "auto",
    max_new_tokens: int = 160,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> LocalChat:
    """The chat model of a folder or Hub id (``owner/name`` or ``owner/name@revision``).

    Args:
        dtype: ``auto`` takes the weights' own.

    Raises:
        UserError: for settings out of range, a source that cannot be loaded as a causal language
            model, weights that do not fit it, or a tokenizer without a chat template.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}; it must be 0 (greedy) or positive")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}; it must be above 0 and at most 1")
    model, folder, recipe = load_model(
        AutoModelForCausalLM, source, device, dtype, "language model"
    )
    tokenizer = load_tokenizer(folder, source)
    if not tokenizer.chat_template:
        raise UserError(f"{source}: it has no chat template; choose an instruction-tuned model")
    return LocalChat(source, recipe, model, tokenizer, device, max_new_tokens, temperature, top_p)
