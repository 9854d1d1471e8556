"""Prompts as the UNet sees them."""

from __future__ import annotations

import torch
from diffusers import StableDiffusionPipeline

from spqr_checks.generation.conditions import Conditions, encode, joined


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
