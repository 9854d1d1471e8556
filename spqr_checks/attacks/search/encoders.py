"""A pipeline's text encoders, fed tokens or embeddings of our own instead of a text.

The pipeline's own ``encode_prompt`` is called, so that what comes out is what its denoiser gets;
hooks put other tokens in place of those of the text that it was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from spqr_checks.attacks.attack import Reads
from spqr_checks.attacks.search.reach import lead
from spqr_checks.errors import UserError
from spqr_checks.finetuning.families.base import Conditions
from spqr_checks.finetuning.families.flux import FluxConditions
from spqr_checks.finetuning.families.registry import family_of
from spqr_checks.finetuning.families.stable_diffusion_3 import StableDiffusion3Conditions
from spqr_checks.finetuning.families.unet import UNetConditions
from spqr_checks.models.pipelines import quiet


class Lead:
    """The text encoders of a pipeline that read one vocabulary.

    Attributes:
        tokenizer: of the first; the others have the same vocabulary.
        most: tokens that fit between the first and the last special one.
    """

    def __init__(self, pipe: DiffusionPipeline, reads: Reads, attack: str) -> None:
        """Raises UserError for a pipeline that the attack cannot steer."""
        parts = {name: ["", type(part).__name__] for name, part in pipe.components.items()}
        names = lead(parts | {"_class_name": type(pipe).__name__}, reads, attack)
        self.pipe = pipe
        self.networks: list[nn.Module] = [getattr(pipe, name) for name in names]
        tokenizers = [getattr(pipe, name.replace("text_encoder", "tokenizer")) for name in names]
        self._pads = [int(each.pad_token_id) for each in tokenizers]
        self.tokenizer: Any = tokenizers[0]
        if any(each.get_vocab() != self.tokenizer.get_vocab() for each in tokenizers[1:]):
            raise UserError(
                f"attack {attack!r}: the text encoders of {type(pipe).__name__} read different "
                "vocabularies, so that no row of tokens is the same to all of them"
            )
        if any(getattr(each.config, "use_attention_mask", False) for each in self.networks):
            raise UserError(
                f"attack {attack!r}: a text encoder of {type(pipe).__name__} is told which tokens "
                "are padding, which the attack cannot; leave the attack out"
            )
        empty = self.tokenizer("").input_ids
        self.end = int(empty[-1])
        self.start = [int(token) for token in empty[:-1]]
        self.most = int(self.tokenizer.model_max_length) - len(empty)

    @property
    def device(self) -> torch.device:
        return next(self.networks[0].parameters()).device

    @property
    def tables(self) -> list[Tensor]:
        """Embeddings of the vocabulary, one matrix for each encoder."""
        return [_table(network).weight for network in self.networks]

    def pad_with(self, token: int) -> None:
        """Fills rows with another token than the tokenizers do, as some authors' code does."""
        self._pads = [token] * len(self._pads)

    def ids(self, text: str) -> list[int]:
        """Tokens of a text without special ones, at most as many as fit."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)[: self.most]

    @contextmanager
    def fed(
        self, rows: Tensor, soft: Sequence[Tensor] | None, where: Sequence[int]
    ) -> Iterator[None]:
        """While this lasts, the encoders read ``rows``, whatever they are given.

        Args:
            rows: shape (n, k), n as many as there are prompts.
            soft: for each encoder, embeddings in place of those of some tokens, shape
                (n, len(where), width).
            where: places of these among the k tokens.
        """
        first = len(self.start)
        with ExitStack() as stack:
            for number, (network, pad) in enumerate(zip(self.networks, self._pads, strict=True)):

                def tokens(
                    _: nn.Module, args: tuple[Any, ...], named: dict[str, Any], pad: int = pad
                ) -> tuple[tuple[Any, ...], dict[str, Any]]:
                    given = args[0] if args else named["input_ids"]
                    full = given.new_full(given.shape, pad)
                    full[:, :first] = given[:, :first]
                    full[:, first : first + rows.shape[1]] = rows.to(given)
                    full[:, first + rows.shape[1]] = self.end
                    return (full, *args[1:]), {k: v for k, v in named.items() if k != "input_ids"}

                handle = network.register_forward_pre_hook(tokens, with_kwargs=True)
                stack.callback(handle.remove)
                if soft is None:
                    continue

                def embeddings(_: nn.Module, __: Any, out: Tensor, number: int = number) -> Tensor:
                    places = torch.tensor([first + place for place in where], device=out.device)
                    assert soft is not None
                    return out.index_copy(1, places, soft[number].to(out))

                stack.callback(_table(network).register_forward_hook(embeddings).remove)
            yield

    def pooled(self, rows: Tensor, soft: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Each encoder's one vector for a row, shape (n, width); ``soft`` is of all tokens."""
        empty = self.tokenizer(
            [""] * len(rows),
            padding="max_length",
            max_length=self.most + len(self.start) + 1,
            return_tensors="pt",
        ).input_ids.to(self.device)
        with self.fed(rows, soft, range(rows.shape[1])):
            found = [network(empty) for network in self.networks]
        return [each.text_embeds if "text_embeds" in each else each.pooler_output for each in found]

    def encode(
        self,
        rows: Tensor,
        texts: Sequence[str],
        soft: Sequence[Tensor] | None = None,
        where: Sequence[int] = (),
    ) -> list[Tensor]:
        """Tokens' states, and pooled ones where there are, as the denoiser gets them.

        Args:
            rows: tokens, shape (n, k).
            texts: the same rows as text, for encoders of another vocabulary.
            soft, where: see `fed`.

        Returns:
            States of shape (n, tokens, width) and perhaps pooled ones, shape (n, width).
        """
        with self.fed(rows, soft, where), quiet():
            return encoded(self.pipe, texts)


def _table(network: nn.Module) -> nn.Embedding:
    """The embeddings that the network calls: T5's are its encoder's, of the same weights."""
    inner = getattr(network, "encoder", None)
    found = getattr(inner, "embed_tokens", None) or network.get_input_embeddings()  # type: ignore[operator]
    assert isinstance(found, nn.Embedding)
    return found


def encoded(pipe: DiffusionPipeline, texts: Sequence[str]) -> list[Tensor]:
    """What the pipeline conditions on, gradients and all: tokens' states, then pooled ones."""
    name, prompts = type(pipe).__name__, list(texts)
    device = next(pipe.text_encoder.parameters()).device
    if name.startswith("Flux"):
        hidden, pooled, _ = pipe.encode_prompt(prompts, prompts, device=device)
        return [hidden, pooled]
    if name.startswith("StableDiffusion3"):
        hidden, _, pooled, _ = pipe.encode_prompt(
            prompts, prompts, prompts, device=device, do_classifier_free_guidance=False
        )
        return [hidden, pooled]
    found = pipe.encode_prompt(
        prompt=prompts,
        device=device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
    )
    return [found[0]] if len(found) < 3 else [found[0], found[2]]


def handed(states: Sequence[Tensor]) -> dict[str, Tensor]:
    """What `encoded` answers for one prompt, as parameters of the pipeline's call."""
    names = ("prompt_embeds", "pooled_prompt_embeds")
    return {name: state.detach().contiguous() for name, state in zip(names, states, strict=False)}


def conditions(pipe: DiffusionPipeline, states: Sequence[Tensor]) -> Conditions:
    """The same as what a denoiser of the pipeline's family is told."""
    name = type(pipe).__name__
    if name.startswith("Flux"):
        return FluxConditions(*states)
    if name.startswith("StableDiffusion3"):
        return StableDiffusion3Conditions(*states)
    if len(states) == 1:
        return UNetConditions(states[0])
    height, width = family_of(pipe).own_size(pipe)
    sizes = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
    return UNetConditions(states[0], states[1], sizes)
