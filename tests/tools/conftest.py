"""A little world of shapes; a chat model and translation models, tiny and of the real classes."""

from __future__ import annotations

import json
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


PHRASES = (("a red star", "une etoile rouge"), ("a tree", "un arbre"), ("the moon", "la lune"))
LETTERS = "▁abcdefghijklmnopqrstuvwxyz"
SMALL = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 64,
}
"""Sizes of a translation model that need not have learned anything."""


@pytest.fixture(scope="session")
def nllb_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NLLB's classes, taught the phrases in both directions; read only."""
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    # every word of the phrases is one token
    words = sorted({word for pair in PHRASES for text in pair for word in text.split()})
    merges = [("▁" + word[:n], word[n]) for word in words for n in range(len(word))]
    tokens = dict.fromkeys(
        ["<s>", "<pad>", "</s>", "<unk>", *LETTERS, *map("".join, merges), "en", "fr"]
    )
    tokenizer = NllbTokenizer(
        vocab={token: n for n, token in enumerate(tokens)},
        merges=list(dict.fromkeys(merges)),
        extra_special_tokens=["eng_Latn", "fra_Latn"],
        model_max_length=40,
    )
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=len(tokenizer),
            **SMALL | {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            encoder_layerdrop=0.0,
            decoder_layerdrop=0.0,
            scale_embedding=True,
        )
    )
    batches = []
    for source, target, pairs in (
        ("eng_Latn", "fra_Latn", PHRASES),
        ("fra_Latn", "eng_Latn", [(b, a) for a, b in PHRASES]),
    ):
        tokenizer.src_lang, tokenizer.tgt_lang = source, target
        batches.append(
            tokenizer(
                [a for a, _ in pairs],
                text_target=[b for _, b in pairs],
                padding="max_length",
                max_length=6,
                return_tensors="pt",
            )
        )
    batch = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
    ignored = batch["labels"] == tokenizer.pad_token_id
    batch["labels"] = batch["labels"].masked_fill(ignored, -100)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(100):
        optimiser.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimiser.step()
        if loss.item() < 0.03:
            break
    torch.set_num_threads(threads)
    folder = tmp_path_factory.mktemp("models") / "nllb"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _pieces(folder: Path, name: str) -> None:
    import sentencepiece

    with (folder / f"{name}.spm").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([text for pair in PHRASES for text in pair] * 20),
            model_writer=file,
            model_type="char",
            vocab_size=24,
            hard_vocab_limit=False,
            minloglevel=2,
        )


@pytest.fixture(scope="session")
def m2m_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """M2M-100's classes with random weights; read only."""
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    folder = tmp_path_factory.mktemp("m2m") / "m2m"
    folder.mkdir()
    _pieces(folder, "pieces")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS]
    vocab = folder / "vocab.json"
    vocab.write_text(json.dumps({token: n for n, token in enumerate(tokens)}), encoding="utf-8")
    tokenizer = M2M100Tokenizer(str(vocab), str(folder / "pieces.spm"), model_max_length=40)
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=len(tokens) + len(tokenizer.lang_code_to_id) + tokenizer.num_madeup_words,
            **SMALL,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def marian_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Marian's classes with random weights, from English into French; read only."""
    import torch
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder = tmp_path_factory.mktemp("marian") / "en-fr"
    folder.mkdir()
    for name in ("source", "target"):
        _pieces(folder, name)
    tokens = ["</s>", "<unk>", *LETTERS, ">>fra<<", ">>spa<<", "<pad>"]
    vocab = folder / "vocab.json"
    vocab.write_text(json.dumps({token: n for n, token in enumerate(tokens)}), encoding="utf-8")
    tokenizer = MarianTokenizer(
        str(folder / "source.spm"),
        str(folder / "target.spm"),
        str(vocab),
        source_lang="en",
        target_lang="fr",
        model_max_length=30,
    )
    torch.manual_seed(0)
    model = MarianMTModel(
        MarianConfig(
            vocab_size=len(tokens),
            **SMALL,
            pad_token_id=len(tokens) - 1,
            decoder_start_token_id=len(tokens) - 1,
            eos_token_id=0,
            forced_eos_token_id=None,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
