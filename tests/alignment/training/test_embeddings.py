"""Prompts as the UNet sees them."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.alignment.method import unet_of
from spqr_checks.alignment.training.embeddings import Conditions, encode, joined, token_embeddings
from spqr_checks.errors import UserError


def test_encoding_is_that_of_the_pipeline(tiny_pipeline: StableDiffusionPipeline) -> None:
    ids = tiny_pipeline.tokenizer(
        ["a red circle", ""], padding="max_length", max_length=32, return_tensors="pt"
    ).input_ids
    expected = tiny_pipeline.text_encoder(ids)[0]
    torch.testing.assert_close(encode(tiny_pipeline, ["a red circle", ""]).hidden, expected)


def test_more_prompts_than_one_batch_keep_their_order(
    tiny_pipeline: StableDiffusionPipeline,
) -> None:
    prompts = [f"a circle {i}" for i in range(40)]
    together = encode(tiny_pipeline, prompts).hidden
    assert together.shape == (40, 32, 16)
    torch.testing.assert_close(together[35:36], encode(tiny_pipeline, prompts[35:36]).hidden)


def test_the_last_token_is_the_one_before_the_end(tiny_pipeline: StableDiffusionPipeline) -> None:
    hidden = encode(tiny_pipeline, ["red circle", ""]).hidden
    words = len(tiny_pipeline.tokenizer("red circle").input_ids) - 2
    last = token_embeddings(tiny_pipeline, ["red circle", ""], "last")
    torch.testing.assert_close(last[0], hidden[0, words])
    torch.testing.assert_close(last[1], hidden[1, 0])  # the start token of the empty prompt


def test_all_tokens_are_every_position(tiny_pipeline: StableDiffusionPipeline) -> None:
    prompts = ["red circle", "a blue star"]
    every = token_embeddings(tiny_pipeline, prompts, "all")
    torch.testing.assert_close(every, encode(tiny_pipeline, prompts).hidden.reshape(64, 16))


def test_no_prompts_are_no_embeddings(tiny_pipeline: StableDiffusionPipeline) -> None:
    assert token_embeddings(tiny_pipeline, [], "last").shape == (0, 16)


def test_selection_keeps_hidden_and_pooled_embeddings_together() -> None:
    a = Conditions(torch.zeros(3, 2, 4), torch.zeros(3, 5))
    b = Conditions(torch.ones(1, 2, 4), torch.ones(1, 5))
    mixed = a.where(torch.tensor([True, False, True]), b)
    assert mixed.hidden[:, 0, 0].tolist() == [0, 1, 0]
    assert mixed.pooled is not None
    assert mixed.pooled[:, 0].tolist() == [0, 1, 0]
    both = joined([mixed, b.repeated(2)])
    assert len(both) == 5
    assert both.pooled is not None
    assert both[torch.tensor([1, 4])].pooled.tolist() == [[1] * 5] * 2  # type: ignore[union-attr]


def test_a_pipeline_without_unet_is_refused() -> None:
    with pytest.raises(UserError, match="'uce' needs a pipeline with a UNet"):
        unet_of(object(), "uce")  # type: ignore[arg-type]
