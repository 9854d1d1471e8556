"""Tiny models that answer questions about images, of the real classes, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
WORDS = [
    *("a", "red", "blue", "circle", "star", "tree", "ring"),
    *("Does", "this", "figure", "show", "Please", "answer", "or", '"', "?", "."),
]
ANSWERS = ["Yes", "yes", "No", "no"]
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


def _restless(model: Any) -> None:
    """The library's initial weights are so small that all inputs look alike."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)


def tokenizer_of(words: list[str]) -> Any:
    """One token a word."""
    table = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    table.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=table,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )


def save_llava(folder: Path, template: str | None = TEMPLATE, answers: bool = True) -> Path:
    """A conversational model; its last layer is made to say yes or no nearly always."""
    tokenizer = tokenizer_of([*SPECIAL, *WORDS, *(ANSWERS if answers else ())])
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(num_hidden_layers=2, **_VISION),
            text_config=text,
            image_token_index=4,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
        )
    )
    _restless(model)
    with torch.no_grad():
        # a first feature that is large for every text, and that only the answers look at
        model.model.language_model.embed_tokens.weight[:, 0] = 6.0
        model.lm_head.weight[: -len(ANSWERS)] = 0.0
        model.lm_head.weight[-len(ANSWERS) :, 0] = 3.0
    model.save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    return folder


def save_blip(folder: Path, leaning: float = 9.0) -> Path:
    """BLIP for visual questions, with a bias of so much towards yes and no."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", "yes", "no"]
    words += dict.fromkeys(word.lower() for word in WORDS)
    tokenizer = BertTokenizer(vocab={w: i for i, w in enumerate(words)}, do_lower_case=True)
    text = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "intermediate_size": 16,
        "projection_dim": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
        "is_decoder": True,
    }
    model = BlipForQuestionAnswering(
        BlipConfig(
            text_config=text,
            vision_config=_VISION | {"num_hidden_layers": 1},
            projection_dim=8,
            image_text_hidden_size=8,
        )
    )
    _restless(model)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias[7:9] += leaning
    model.save_pretrained(folder)
    processor = BlipImageProcessorPil(size={"height": 16, "width": 16})
    BlipProcessor(processor, tokenizer).save_pretrained(folder)
    return folder
