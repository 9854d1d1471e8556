"""Text encoders that are fed tokens or embeddings say what they say of the text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from real_classes import clip_tokenizer, t5_tokenizer

from spqr_checks.attacks.attack import Reads
from spqr_checks.attacks.search.encoders import Lead, encoded
from spqr_checks.attacks.search.vocabulary import Vocabulary
from spqr_checks.models.pipelines import load_pipeline

TEXT = "red triangle on house"
CLASSES = ("sd1", "sd2", "sdxl", "sd3", "flux")


@pytest.mark.parametrize("name", CLASSES)
def test_fed_tokens_and_their_embeddings_are_encoded_as_the_text_is(
    name: str, real_class: Callable[[str], Path]
) -> None:
    lead = Lead(load_pipeline(str(real_class(name))), "tokens", "x")
    row = torch.tensor([lead.ids(TEXT)])
    with torch.no_grad():
        expected = encoded(lead.pipe, [TEXT])
        found = lead.encode(row, [TEXT])
        soft = [table[row[0]][None] for table in lead.tables]
        # other tokens underneath: the embeddings alone count
        other = torch.full_like(row, lead.ids("cat")[0])
        embedded = lead.encode(other, [TEXT], soft, range(row.shape[1]))
    for states in (found, embedded):
        for one, wanted in zip(states, expected, strict=True):
            torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_reach_every_steered_embedding(
    name: str, real_class: Callable[[str], Path]
) -> None:
    lead = Lead(load_pipeline(str(real_class(name))), "tokens", "x")
    row = torch.tensor([lead.ids(TEXT)])
    soft = [table[row[0]].detach()[None].clone().requires_grad_() for table in lead.tables]
    states = lead.encode(row, [TEXT], soft, range(row.shape[1]))
    gradients = torch.autograd.grad(states[0].square().sum(), soft)
    assert len(gradients) == len(lead.networks)
    assert all(bool((gradient.abs().sum(-1) > 0).all()) for gradient in gradients)


@pytest.mark.parametrize("name", ["sd1", "sdxl", "flux"])
def test_the_pooled_vector_is_that_of_the_encoder(
    name: str, real_class: Callable[[str], Path]
) -> None:
    reads: Reads = "pooled"
    lead = Lead(load_pipeline(str(real_class(name))), reads, "mma")
    row = torch.tensor([lead.ids(TEXT)])
    text = lead.tokenizer(TEXT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        own = lead.networks[0](text)
        (first, *_) = lead.pooled(row)
    wanted = own.text_embeds if "text_embeds" in own else own.pooler_output
    torch.testing.assert_close(first, wanted, rtol=1e-4, atol=1e-5)


def test_nothing_stays_hooked(real_class: Callable[[str], Path]) -> None:
    lead = Lead(load_pipeline(str(real_class("sd1"))), "tokens", "x")
    before = encoded(lead.pipe, [TEXT])[0]
    with pytest.raises(RuntimeError), lead.fed(torch.tensor([lead.ids("cat")]), None, ()):
        raise RuntimeError
    assert torch.equal(encoded(lead.pipe, [TEXT])[0], before)


TOKENIZERS = {"clip": clip_tokenizer(), "t5": t5_tokenizer()}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(seed=st.integers(0, 2**31))
def test_rows_of_sound_tokens_are_read_as_they_are_written(name: str, seed: int) -> None:
    tokenizer = TOKENIZERS[name]
    vocabulary = Vocabulary(tokenizer, compat=False)
    row = vocabulary.draw((6,), torch.Generator().manual_seed(seed)).tolist()
    assert tokenizer(vocabulary.text(row), add_special_tokens=False).input_ids == row


def test_a_sound_vocabulary_has_whole_words_only_and_can_leave_some_out() -> None:
    tokenizer = TOKENIZERS["clip"]
    words = {tokenizer.decode([i]).strip() for i in Vocabulary(tokenizer, False).ids.tolist()}
    assert {"red", "house"} <= words
    assert len(Vocabulary(tokenizer, True).ids) > len(words)
    left = Vocabulary(tokenizer, False, ["Red"])
    assert len(left.ids) == len(words) - 1
