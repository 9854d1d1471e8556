"""Cross-attention to a concept's tokens: where they are, and how much they are attended to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from torch import Tensor, nn


def token_ids(pipe: DiffusionPipeline, prompts: Sequence[str]) -> Tensor:
    """Tokens with start, end and padding, shape (prompts, tokens)."""
    tokenizer = pipe.tokenizer
    given = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    ids: Tensor = tokenizer(list(prompts), max_length=tokenizer.model_max_length, **given).input_ids
    return ids


def content_length(pipe: DiffusionPipeline, ids: Tensor) -> int:
    """Tokens from the start to the first end token, both counted, of one prompt's ``ids``."""
    return int((ids == pipe.tokenizer.eos_token_id).int().argmax()) + 1


def shared_ends(one: Sequence[int], other: Sequence[int]) -> tuple[int, int]:
    """How many tokens two sequences begin with alike, and how many of the rest they end with."""
    limit, prefix, suffix = min(len(one), len(other)), 0, 0
    while prefix < limit and one[prefix] == other[prefix]:
        prefix += 1
    while suffix < limit - prefix and one[-1 - suffix] == other[-1 - suffix]:
        suffix += 1
    return prefix, suffix


def concept_mask(pipe: DiffusionPipeline, prompts: Sequence[str], others: Sequence[str]) -> Tensor:
    """Which positions are the concept's, shape (prompts, tokens).

    Those are the tokens in which a prompt differs from what is to be drawn instead (all, if that
    is empty), the end token, and padding where that is the end token again. Prompts that do not
    differ keep their end tokens only.
    """
    end, rows = pipe.tokenizer.eos_token_id, []
    for ids, its in zip(token_ids(pipe, prompts), token_ids(pipe, others), strict=True):
        n, m = content_length(pipe, ids), content_length(pipe, its)
        prefix, suffix = shared_ends(ids[:n].tolist(), its[:m].tolist())
        mask = ids == end
        mask[prefix : n - suffix] = True
        rows.append(mask)
    return torch.stack(rows)


@contextmanager
def attention_maps(network: nn.Module) -> Iterator[list[Tensor]]:
    """Probabilities of every cross-attention of one call, in the order of the layers.

    Shape (rows, heads, pixels, tokens) each. They are computed beside the network's own, which
    may use a fused kernel that keeps none.
    """
    maps: list[Tensor] = []

    def see(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        text = kwargs["encoder_hidden_states"]
        query, key = (
            module.head_to_batch_dim(project(states))
            for project, states in ((module.to_q, hidden), (module.to_k, text))
        )
        found = module.get_attention_scores(query, key)
        maps.append(found.view(len(hidden), module.heads, *found.shape[1:]))

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if name.endswith(".attn2"):
                hook = module.register_forward_pre_hook(see, with_kwargs=True)
                hooks.callback(hook.remove)
        yield maps


def inside(attention: Tensor, tokens: Tensor, masks: Tensor | None) -> Tensor:
    """Attention to the concept's tokens from where the object is; zero elsewhere.

    Args:
        attention: shape (rows, heads, pixels, tokens).
        tokens: which are the concept's, shape (rows, tokens).
        masks: where the object is, shape (rows, height, width), resized to the layer's pixels by
            the nearest; everywhere if not given.

    Returns:
        Shape (rows, heads, pixels, tokens).
    """
    found = attention * tokens[:, None, None].to(attention)
    if masks is None:
        return found
    rows, _, pixels, _ = attention.shape
    height, width = masks.shape[-2:]
    scale = (pixels / (height * width)) ** 0.5
    size = (round(height * scale), round(width * scale))
    near = F.interpolate(masks[:, None].to(attention), size=size, mode="nearest")
    return found * near.view(rows, 1, pixels, 1)
