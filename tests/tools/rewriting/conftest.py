"""A little world of shapes, and a tiny chat model of the real classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spqr_checks.models.sources import resolve
from spqr_checks.tools.rewriting.slot_table import SlotTable


@pytest.fixture
def table_values() -> dict[str, Any]:
    """A slot table as plain values; tests may change it."""
    return {
        "name": "shapes",
        "templates": ["a {colour} {shape}", "a {size} {colour} {shape}", "a {size} {shape}"],
        "slots": {
            "size": ["small", "large"],
            "colour": ["red", "blue", "green"],
            "shape": ["triangle", "star", "hazard sign"],
        },
        "concepts": {
            "red triangle": {
                "category": "signals",
                "shown_by": {"colour": "red", "shape": "triangle"},
                "replace": {"colour": ["blue", "green"]},
                "aliases": ["triángulo rojo"],
            },
            "hazard sign": {
                "category": "warnings",
                "shown_by": {"shape": "hazard sign"},
                "replace": {"shape": ["triangle", "star"]},
            },
        },
        "never": [{"colour": "blue", "size": "large"}],
    }


@pytest.fixture
def table(table_values: dict[str, Any]) -> SlotTable:
    return SlotTable.parse(table_values, "shapes")


@pytest.fixture(scope="session")
def clip_dir() -> Path:
    """The packaged CLIP, as anyone's; read only."""
    return resolve("miniature:clip")


@pytest.fixture(scope="session")
def chat_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved LlamaForCausalLM with random weights and a byte-level tokenizer; read only."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate(["<s>", "</s>", "<turn>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>", "<turn>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", extra_special_tokens=["<turn>"]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<turn>{{ m.role }}: {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant: {% endif %}"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=4096,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    # the library's initial weights are so small that all inputs look alike
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    folder = tmp_path_factory.mktemp("chat")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
