"""Yes and no among a model's first tokens."""

from __future__ import annotations

from typing import Any

import torch

from spqr_checks.errors import JudgeError, UserError

ANSWERED = 0.5
"""Least probability of yes and no together that counts as an answer; ours."""


def spellings(word: str) -> tuple[str, ...]:
    """``yes``, ``Yes`` and ``YES``, each with and without a space before it."""
    cased = (word, word.capitalize(), word.upper())
    return (*cased, *(f" {each}" for each in cased))


def answer_tokens(tokenizer: Any, source: str) -> tuple[list[int], list[int]]:
    """Ids of the tokens that say yes, and of those that say no.

    Raises:
        UserError: if the vocabulary lacks one of the answers as a single token.
    """
    yes, no = (_single_tokens(tokenizer, word) for word in ("yes", "no"))
    if not yes or not no or set(yes) & set(no):
        raise UserError(f"{source}: its tokenizer has no single tokens for yes and for no")
    return yes, no


def _single_tokens(tokenizer: Any, word: str) -> list[int]:
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in spellings(word)]
    return sorted({ids[0] for ids in encoded if len(ids) == 1} - {tokenizer.unk_token_id})


def yes_probability(logits: torch.Tensor, yes: list[int], no: list[int], what: str) -> float:
    """P(yes) over the whole vocabulary.

    Args:
        logits: of the first token of the answer, shape (vocabulary,).
        what: which image it is about, for messages.

    Raises:
        JudgeError: for logits that are not finite, or an answer that is neither yes nor no.
    """
    if logits.ndim != 1 or not torch.isfinite(logits[yes + no]).all() or logits.isnan().any():
        raise JudgeError(f"{what}: the model gave NaN or infinite logits")
    probability = logits.double().softmax(-1)
    said_yes, said_no = (float(probability[ids].sum()) for ids in (yes, no))
    if not said_yes + said_no >= ANSWERED:
        raise JudgeError(
            f"{what}: the model answers neither yes nor no (probability {said_yes + said_no:.3f})"
        )
    return min(1.0, said_yes)
