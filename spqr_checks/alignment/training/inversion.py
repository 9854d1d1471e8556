"""Prompts with learned tokens: textual inversion, and embeddings in the place of words.

Gal et al., "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual
Inversion" (ICLR 2023). Nothing is added to the tokenizer: a learned token stands at a place that
the token embedding's output is replaced at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor, nn

from spqr_checks.alignment.request import Report
from spqr_checks.alignment.training.latents import Pool
from spqr_checks.alignment.training.noising import Noiser
from spqr_checks.alignment.training.options import TrainingOptions
from spqr_checks.alignment.training.training import optimise
from spqr_checks.alignment.training.unet import Predictor
from spqr_checks.errors import UserError
from spqr_checks.generation.conditions import Conditions


def refuse_several_encoders(pipe: DiffusionPipeline, method: str) -> None:
    """UserError unless the pipeline reads prompts by one CLIP text encoder."""
    if not isinstance(pipe, StableDiffusionPipeline):
        raise UserError(
            f"method {method!r} works inside one CLIP text encoder (Stable Diffusion 1 and 2), and "
            f"this pipeline is a {type(pipe).__name__}"
        )


def hidden_states(pipe: DiffusionPipeline, embedded: Tensor, ids: Tensor) -> Tensor:
    """Token states, with gradients, of ``ids`` whose token embeddings are replaced.

    Args:
        embedded: token embeddings, shape (prompts, tokens, width).
        ids: shape (prompts, tokens); they still say where a prompt ends.
    """
    table: nn.Module = pipe.text_encoder.get_input_embeddings()
    hook = table.register_forward_hook(lambda _module, _inputs, _output: embedded)
    try:
        found: Tensor = pipe.text_encoder(ids)[0]
    finally:
        hook.remove()
    return found


@dataclass
class Slots:
    """A prompt with places for learned tokens.

    Attributes:
        ids: shape (tokens,); a slot holds any id.
        first, n: the slots are the positions first … first + n − 1.
    """

    ids: Tensor
    first: int
    n: int

    @classmethod
    def of(cls, pipe: DiffusionPipeline, template: str, n: int) -> Slots:
        """Slots at the ``{}`` of a template. UserError: it has none, or not room enough."""
        before, mark, after = template.partition("{}")
        tokenizer = pipe.tokenizer
        parts = [tokenizer(text, add_special_tokens=False).input_ids for text in (before, after)]
        filler = [tokenizer.eos_token_id - 1 if tokenizer.eos_token_id else 1] * n
        ids = [tokenizer.bos_token_id, *parts[0], *filler, *parts[1], tokenizer.eos_token_id]
        free = int(tokenizer.model_max_length) - len(ids)
        if not mark or free < 0:
            raise UserError(
                f"template {template!r} has no room for {n} learned tokens; it needs one {{}} and "
                f"at most {tokenizer.model_max_length} tokens in all"
            )
        ids += [tokenizer.pad_token_id] * free
        return cls(torch.tensor(ids), 1 + len(parts[0]), n)

    def states(self, pipe: DiffusionPipeline, vectors: Tensor) -> Tensor:
        """Token states of the prompt with these embeddings in its slots, shape (1, tokens, width).

        ``vectors``: shape (n, width).
        """
        ids = self.ids.to(vectors.device)
        with torch.no_grad():
            embedded = pipe.text_encoder.get_input_embeddings()(ids)
        end = self.first + self.n
        whole = torch.cat([embedded[: self.first], vectors.to(embedded), embedded[end:]])
        return hidden_states(pipe, whole[None], ids[None])

    def mask(self, pipe: DiffusionPipeline) -> Tensor:
        """The slots and every end token, shape (1, tokens)."""
        found: Tensor = self.ids == pipe.tokenizer.eos_token_id
        found[self.first : self.first + self.n] = True
        return found[None]


def first_rows(
    pipe: DiffusionPipeline, words: Sequence[str], n: int, generator: torch.Generator
) -> Tensor:
    """Embeddings to start from, shape (n, width): of these words' tokens, then of random ones."""
    table = pipe.text_encoder.get_input_embeddings().weight.detach()
    ids = [i for w in words for i in pipe.tokenizer(w, add_special_tokens=False).input_ids][:n]
    more = torch.randint(0, len(table), (n - len(ids),), generator=generator).tolist()
    rows: Tensor = table[torch.tensor(ids + more, device=table.device)].float().clone()
    return rows


def invert(
    pipe: DiffusionPipeline,
    slots: Slots,
    start: Tensor,
    pool: Pool,
    options: TrainingOptions,
    *,
    predictor: Predictor,
    noiser: Noiser,
    learning_rate: float,
    weight_decay: float,
    generator: torch.Generator,
    report: Report,
) -> Tensor:
    """Embeddings with which the UNet's diffusion loss on the pool is least, shape of ``start``.

    Neither the UNet nor the text encoder is changed.
    """
    network: nn.Module = pipe.unet
    vectors = nn.Parameter(start.clone())

    def loss() -> Tensor:
        _, z = pool.pick(options.batch, generator)
        x, t, truth = noiser.with_truth(z, generator)
        states = slots.states(pipe, vectors).expand(len(x), -1, -1)
        return F.mse_loss(predictor(network, x, t, Conditions(states)), truth)

    frozen = [*network.parameters(), *pipe.text_encoder.parameters()]
    required = [parameter.requires_grad for parameter in frozen]
    for parameter in frozen:
        parameter.requires_grad_(False)
    optimise(
        [vectors],
        loss,
        options,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        report=report,
    )
    for parameter, was in zip(frozen, required, strict=True):
        parameter.requires_grad_(was)
    return vectors.detach()
