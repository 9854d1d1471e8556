"""``guardt2i``: turns a prompt's embedding back into words, and looks whether they are the same.

GuardT2I (Yang et al., arXiv 2403.01446). A decoder writes what the text encoder has understood. An
adversarial prompt reads as noise, while its embedding decodes to what it asks for: so a prompt is
let through if the decoded text is similar to it, and if the decoded text holds no listed word:
similarity − 0.6 · [a listed word is in it] > 0.66 in the authors' code.

Ours: a small decoder, trained on the prompts given here instead of ten million captions; similarity
by the guard's own text encoder, cosines of end-of-text states around the mean of its training
prompts, unless ``similarity`` names a CLIP model; the threshold is set on held-out prompts; listed
words are the names of the concepts and ``words``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from spqr_checks.errors import UserError
from spqr_checks.guards import folder
from spqr_checks.guards.base import Answer, GuardKind, GuardOptions, GuardRequest, TrainingRequest
from spqr_checks.models.sources import source_recipe
from spqr_checks.prompts.text import normalised

if TYPE_CHECKING:
    from torch import Tensor

    from spqr_checks.guards.text_encoder import TextEncoder

_NAME = "guardt2i"
_MEAN = "mean_end"
_IGNORED = -100
Count = Annotated[int, Field(ge=1)]


class Options(GuardOptions):
    """How decoded text is read.

    ``threshold``: of the score, which is minus the similarity, plus ``penalty`` for a listed word;
    that of the training if not given. ``words``: more words that decoded text may not hold.
    """

    threshold: float | None = None
    penalty: Annotated[float, Field(ge=0)] = 0.6
    words: tuple[str, ...] = ()
    similarity: str = ""


class Training(GuardOptions):
    """The authors train 24 layers of width 1,024 at 1e-5, 52 captions a step."""

    steps: Count = 1000
    batch: Count = 52
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    layers: Count = 2
    width: Count = 128
    heads: Count = 4


@dataclass(frozen=True)
class Decoder:
    """A causal language model that attends to one vector: the end of the prompt, zero-padded."""

    network: Any
    encoder: TextEncoder

    def logits(self, ids: Tensor, ends: Tensor) -> Tensor:
        """Shape (n, tokens, vocabulary)."""
        from torch.nn.functional import pad

        seen = pad(ends, (0, self.network.config.hidden_size - ends.shape[-1]))[:, None]
        found: Tensor = self.network(input_ids=ids, encoder_hidden_states=seen).logits
        return found

    def decode(self, prompts: Sequence[str]) -> list[str]:
        """What the embedding of each prompt says, greedily, as many tokens as the prompt has."""
        import torch

        ids, ends = self.encoder.tokens(prompts), self.encoder.encode(prompts)[1]
        written = ids[:, :1]
        with torch.inference_mode():
            while written.shape[1] < ids.shape[1]:
                best = self.logits(written, ends)[:, -1].argmax(-1)
                written = torch.cat([written, best[:, None]], 1)
        lengths = _lengths(self.encoder, ids)
        rows = [row[:length].tolist() for row, length in zip(written, lengths, strict=True)]
        texts = self.encoder.tokenizer.batch_decode(rows, skip_special_tokens=True)
        # not every tokenizer's decoder knows the mark at the end of CLIP's words
        return [text.replace("</w>", " ").strip() for text in texts]


def _lengths(encoder: TextEncoder, ids: Tensor) -> list[int]:
    """Tokens of each prompt up to the end of its text."""
    end = encoder.tokenizer.eos_token_id
    found: list[int] = ((ids == end).int().argmax(1) + 1).tolist()
    return found


@dataclass(frozen=True)
class GuardT2I:
    """``similar`` gives one number for each pair of texts, the higher the more alike."""

    decoder: Decoder
    similar: Callable[[Sequence[str], Sequence[str]], list[float]]
    words: tuple[str, ...]
    penalty: float
    threshold: float = 0.0

    def scores(self, prompts: Sequence[str]) -> list[float]:
        """Minus similarity, plus the penalty where a listed word is part of the decoded text."""
        decoded = self.decoder.decode(prompts)
        named = [any(word in normalised(text) for word in self.words) for text in decoded]
        alike = self.similar(prompts, decoded)
        return [self.penalty * hit - one for hit, one in zip(named, alike, strict=True)]

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        return [Answer(score > self.threshold, score) for score in self.scores(prompts)]


def _by_ends(encoder: TextEncoder, mean: Tensor) -> Callable[[Sequence[str], Sequence[str]], Any]:
    """Cosines of ends around their mean: plain ones are all near 1."""
    from torch.nn.functional import cosine_similarity

    def similar(one: Sequence[str], other: Sequence[str]) -> list[float]:
        first, second = (encoder.encode(texts)[1] - mean for texts in (one, other))
        found: list[float] = cosine_similarity(first, second, dim=-1).tolist()
        return found

    return similar


def _by_clip(source: str, device: str) -> Callable[[Sequence[str], Sequence[str]], Any]:
    from spqr_checks.metrics.clip import load_clip

    clip = load_clip(source, device)

    def similar(one: Sequence[str], other: Sequence[str]) -> list[float]:
        found: list[float] = (clip.embed_texts(one) * clip.embed_texts(other)).sum(-1).tolist()
        return found

    return similar


def _network(sizes: Training, encoder: TextEncoder) -> Any:
    from transformers import BertGenerationConfig, BertGenerationDecoder

    tokenizer = encoder.tokenizer
    if sizes.width < encoder.width:
        raise UserError(
            f"{_NAME}: width {sizes.width} is less than the text encoder's, {encoder.width}"
        )
    return BertGenerationDecoder(
        BertGenerationConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=4 * sizes.width,
            max_position_embeddings=encoder.model.config.max_position_embeddings,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=None,
            is_decoder=True,
            add_cross_attention=True,
        )
    )


def _load(request: GuardRequest) -> GuardT2I:
    import torch
    from safetensors.torch import load_file

    from spqr_checks.guards.text_encoder import load_text_encoder

    record, options = folder.read_record(request.source, _NAME), request.options
    encoder = load_text_encoder(request.source, request.device)
    try:
        network = _network(Training.model_validate(record.training), encoder)
        network.register_buffer(_MEAN, torch.zeros(encoder.width))
        _restore(network, load_file(Path(request.source).expanduser() / folder.WEIGHTS))
    except Exception as error:  # whatever does not fit
        said = str(error).splitlines()[0]
        raise UserError(f"{request.source}: {folder.WEIGHTS} does not fit: {said}") from error
    network.to(request.device).eval().requires_grad_(False)
    by = options.similarity
    similar = _by_clip(by, request.device) if by else _by_ends(encoder, network.mean_end)
    words = _words(record.concepts + request.concepts + options.words)
    threshold = record.threshold if options.threshold is None else options.threshold
    return GuardT2I(Decoder(network, encoder), similar, words, options.penalty, threshold)


def _words(listed: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(normalised, listed)))


def _tensors(network: Any) -> dict[str, Tensor]:
    """What is trained, shared weights once, and the mean end."""
    trained = {name: tensor.detach() for name, tensor in network.named_parameters()}
    return trained | {_MEAN: network.get_buffer(_MEAN)}


def _restore(network: Any, tensors: dict[str, Tensor]) -> None:
    """Raises ValueError for a tensor too many, too few or of another shape."""
    for name, own in _tensors(network).items():
        if name not in tensors or tensors[name].shape != own.shape:
            raise ValueError(f"it lacks {name} of shape {tuple(own.shape)}")
        own.copy_(tensors.pop(name))
    if tensors:
        raise ValueError(f"it holds {min(tensors)}, which the decoder does not have")


def _train(request: TrainingRequest, options: Training, out: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from torch.nn.functional import cross_entropy

    from spqr_checks.guards.text_encoder import load_text_encoder

    encoder = load_text_encoder(request.base)
    learned, _ = folder.split(request)
    texts = [*(text for _, text in learned.harmful), *learned.benign]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        network = _network(options, encoder).train()
    decoder, rng = Decoder(network, encoder), random.Random(request.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate)
    for _ in range(options.steps):
        part = rng.choices(texts, k=options.batch)
        ids, ends = encoder.tokens(part), encoder.encode(part)[1].clone()
        longest = max(lengths := _lengths(encoder, ids))
        targets = ids[:, 1:longest].clone()
        for row, length in zip(targets, lengths, strict=True):
            row[length - 1 :] = _IGNORED
        found = decoder.logits(ids[:, : longest - 1], ends)
        loss = cross_entropy(found.flatten(0, 1), targets.flatten(), ignore_index=_IGNORED)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
        raise UserError(f"the training of {_NAME} diverged; give it a smaller learning_rate")
    network.eval().requires_grad_(False)
    mean = encoder.encode(texts)[1].mean(0)
    defaults = Options()
    guard = GuardT2I(decoder, _by_ends(encoder, mean), _words(request.concepts), defaults.penalty)
    encoder.save(out)
    network.register_buffer(_MEAN, mean.clone())
    save_file(_tensors(network), out / folder.WEIGHTS)
    folder.finish(out, _NAME, request, guard.scores, options)


GUARD = GuardKind(
    Options,
    _load,
    "required",
    folder.contents(_NAME),
    ("torch", "transformers", "tokenizers", "safetensors"),
    Training,
    _train,
    lambda options: source_recipe(options.similarity) if options.similarity else None,
)
