"""Byte-level BPE tokenizer of the embedded world, with CLIP's vocabulary conventions.

transformers' ``CLIPTokenizer`` always rebuilds its own pre-tokenizer, whose ``\\p{L}+`` splits
Devanagari words at every vowel sign. The same tokenizer with ``[\\p{L}\\p{M}]+`` is therefore
saved as a plain ``tokenizer.json``; words stay whole and unknown text falls back to bytes.
"""

from __future__ import annotations

import json
import random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import RobertaProcessing
from transformers import PreTrainedTokenizerFast

from spqr_checks.miniature.captions import random_caption
from spqr_checks.miniature.scene import any_scene
from spqr_checks.miniature.vocabulary import LANGUAGES, STYLES

MAX_TOKENS = 32
_START, _END = "<|startoftext|>", "<|endoftext|>"
_SUFFIX = "</w>"
_WORD = r"[\p{L}\p{M}]+|[\p{N}]|[^\s\p{L}\p{M}\p{N}]+"
# ordinary words of the prompts people try first, so that they are not spelled in bytes
_COMMON = "a photo of the and with in two one no not next to left right above below picture drawing"


def train_tokenizer(seed: int, captions: int = 6000) -> PreTrainedTokenizerFast:
    """Trains the tokenizer on random captions of every style and language."""
    rng = random.Random(seed)
    text = [
        random_caption(rng, any_scene(rng, STYLES), LANGUAGES[i % len(LANGUAGES)])
        for i in range(captions)
    ]
    text += [_COMMON] * 50
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Given in advance, in order, since the trainer would number final letters in the order of a
    # hash table, another one in every process.
    first = [_START, _END, *alphabet, *(letter + _SUFFIX for letter in alphabet)]
    backend = _untrained(models.BPE(end_of_word_suffix=_SUFFIX, continuing_subword_prefix=""))
    trainer = trainers.BpeTrainer(
        vocab_size=2000, end_of_word_suffix=_SUFFIX, special_tokens=first, show_progress=False
    )
    backend.train_from_iterator(text, trainer)
    learned = json.loads(backend.to_str())["model"]
    backend = _untrained(
        models.BPE(
            vocab=learned["vocab"],
            merges=[tuple(pair) for pair in learned["merges"]],
            end_of_word_suffix=_SUFFIX,
            continuing_subword_prefix="",
            unk_token=_END,
        )
    )
    backend.add_special_tokens([_START, _END])
    # the special tokens come first in the vocabulary, in this order
    backend.post_processor = RobertaProcessing((_END, 1), (_START, 0), False, False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        unk_token=_END,
        model_max_length=MAX_TOKENS,
    )


def _untrained(model: models.BPE) -> Tokenizer:
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend
