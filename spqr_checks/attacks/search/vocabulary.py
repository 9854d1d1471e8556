"""Tokens that a search may take: those that are still themselves once they are written as text.

A row of tokens that a search has found is handed on as text, and read again. Tokens that are parts
of words become others then, and what was searched for is not what is drawn. Whole words survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_BLOCK = 4096


class Vocabulary:
    """Tokens to choose from, with their texts.

    Args:
        tokenizer: of the text encoders under attack.
        compat: all tokens but the special ones, as in the authors' code, parts of words included.
        without: words that no token may be, for attacks that are to pass a filter of words.
    """

    def __init__(self, tokenizer: Any, compat: bool, without: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._compat = compat
        texts = _texts(tokenizer)
        special = set(tokenizer.all_special_ids)
        banned = {word.casefold() for word in without}
        kept = (
            _whole(tokenizer) if not compat else [i for i in range(len(texts)) if i not in special]
        )
        self.ids = torch.tensor([i for i in kept if texts[i].casefold() not in banned])
        """Shape (tokens,), ascending."""
        self._texts = texts

    def text(self, row: Sequence[int]) -> str:
        """A row of tokens as text."""
        if self._compat:
            return written(self._tokenizer, list(row))
        return " ".join(self._texts[token] for token in row)

    def own(self, row: Sequence[int]) -> str:
        """Tokens of a prompt, parts of words included, as text."""
        return written(self._tokenizer, list(row))

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Random tokens."""
        return self.ids[torch.randint(len(self.ids), shape, generator=generator)]


def written(tokenizer: Any, row: list[int]) -> str:
    """Tokens as text."""
    # some decoders leave the mark of a word's end, which CLIP's takes out
    return str(tokenizer.decode(row)).replace("</w>", " ").strip()


@lru_cache(maxsize=4)
def _texts(tokenizer: Any) -> tuple[str, ...]:
    return tuple(written(tokenizer, [i]) for i in range(len(tokenizer)))


@lru_cache(maxsize=4)
def _whole(tokenizer: Any) -> tuple[int, ...]:
    """Tokens whose text is read as that token again, beside any other word."""
    texts, special = _texts(tokenizer), set(tokenizer.all_special_ids)
    kept = [
        i
        for i, text in enumerate(texts)
        if i not in special and text.isprintable() and text.strip()
    ]
    whole: list[int] = []
    for start in range(0, len(kept), _BLOCK):
        part = kept[start : start + _BLOCK]
        # between two words, since some tokens stand at the beginning of a text only
        ends = tokenizer("a", add_special_tokens=False).input_ids
        read = tokenizer([f"a {texts[i]} a" for i in part], add_special_tokens=False).input_ids
        whole += [i for i, row in zip(part, read, strict=True) if list(row) == [*ends, i, *ends]]
    return tuple(whole)
