"""Vision-language judges of the real classes: tiny, random, with tokenizers made on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    Gemma3ImageProcessorPil,
    GemmaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    Qwen2Tokenizer,
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
)

SIDE = 16
POLICIES = {"signs": "No signs.", "shapes": "No red triangles.", "words": "No writing at all."}
CONTEXT = 8192
"""Tokens; the packaged policy is long where every letter is one."""
GRID = [[16, 16], [16, 32], [32, 16], [32, 32]]
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }} "
    "{% for c in m.content %}{% if c.type == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA_TEMPLATE = (
    "{% for m in messages %}USER: <image>\n{{ m.content[1].text }} {% endfor %}ASSISTANT:"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>user\n"
    "{% for c in m.content %}{% if c.type == 'image' %}<start_of_image>{% endif %}{% endfor %}"
    "Policy: {{ m.content[1].text }} Broken? Yes or No"
    "<end_of_turn>{% endfor %}<start_of_turn>model\n"
)
_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
_VISION = _TEXT | {"num_attention_heads": 2, "image_size": SIDE, "patch_size": 8}


def images(*sizes: tuple[int, int]) -> list[Image.Image]:
    """Noise of the given widths and heights."""
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in sizes
    ]


def onevision(folder: Path, words: Iterable[str] = ("Safe", "Unsafe")) -> Path:
    """LLaVA-OneVision as LlavaGuard v1.2; ``words`` are one token each."""
    tokenizer = _qwen(words)
    config = LlavaOnevisionConfig(
        text_config=_text("qwen2", tokenizer),
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False} | _VISION,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=GRID,
    )
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=GRID
    )
    model = _random(LlavaOnevisionForConditionalGeneration, config)
    return _saved(folder, model, processor, tokenizer, QWEN_TEMPLATE)


def llava(folder: Path, words: Iterable[str] = ("Safe", "Un", "safe")) -> Path:
    """LLaVA 1.5 as LlavaGuard v1.1, where ``Unsafe`` is two tokens."""
    tokenizer = _qwen(words, bos_token="<|begin|>")
    config = LlavaConfig(
        text_config=_text("llama", tokenizer),
        vision_config={"model_type": "clip_vision_model", "projection_dim": 16} | _VISION,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    model = _random(LlavaForConditionalGeneration, config)
    return _saved(folder, model, processor, tokenizer, VICUNA_TEMPLATE)


def shieldgemma(folder: Path) -> Path:
    """ShieldGemma 2 with its own class of processor."""
    tokenizer = _gemma()

    def token(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    text = _text("gemma3_text", tokenizer) | {"head_dim": 8, "sliding_window": 64}
    config = ShieldGemma2Config(
        text_config=text | {"layer_types": ["sliding_attention", "full_attention"]},
        vision_config={"model_type": "siglip_vision_model"} | _VISION,
        mm_tokens_per_image=4,
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
        image_token_index=token("<image_soft_token>"),
        yes_token_index=token("Yes"),
        no_token_index=token("No"),
    )
    processor = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    model = _random(ShieldGemma2ForImageClassification, config)
    (folder / "processor_config.json").write_text(json.dumps({"policy_definitions": POLICIES}))
    return _saved(folder, model, processor, tokenizer, GEMMA_TEMPLATE)


def _text(kind: str, tokenizer: Any) -> dict[str, Any]:
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    # as in the published weights
    tied = {"tie_word_embeddings": kind == "gemma3_text"}
    return {"model_type": kind, "pad_token_id": 0} | tied | size | _TEXT | _HEADS


def _qwen(words: Iterable[str], **special: Any) -> Any:
    """Qwen 2's tokenizer: every byte is a token, and so is each of the words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces, merges = _pieces(words)
    vocab = {piece: n for n, piece in enumerate(dict.fromkeys([*alphabet, *pieces]))}
    return Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        extra_special_tokens=["<image>", "<video>", "<|im_start|>", "<|im_end|>"],
        **special,
    )


def _gemma() -> Any:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = [chr(n) for n in range(33, 127)] + ["▁", "\n"]
    pieces, merges = _pieces(("Yes", "No"))
    names = dict.fromkeys([*special, *letters, *pieces])
    return GemmaTokenizer(
        vocab={piece: n for n, piece in enumerate(names)},
        merges=merges,
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )


def _pieces(words: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Beginnings of the words, and the merges that make them letter by letter."""
    pairs = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    return [left + right for left, right in pairs], list(dict.fromkeys(pairs))


def _random(model_class: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config).eval()
        # the library's initial weights are so small that all images look alike
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 or "newline" in name:
                    parameter.normal_(std=0.5)
    return model


def _saved(folder: Path, model: Any, processor: Any, tokenizer: Any, template: str) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder
