"""``latent-guard``: cross-attention of a prompt's tokens to the names of unwanted concepts.

Latent Guard (Liu et al., arXiv 2404.08031). Over CLIP's text encoder, which stays as it is, a small
head is trained by contrast: a prompt's tokens and its end (keys and values) are attended to by a
concept's end (query), h heads of width d, and both are mapped into one space; the score is τ times
the cosine there. A prompt is blocked whose largest score over the concepts exceeds a threshold.

Ours: a batch holds as many concepts as there are, if those are fewer than ``batch``; the threshold
is set on held-out prompts (`folder.best_threshold`), where the authors give 9.0131 for their data.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from spqr_checks.errors import UserError
from spqr_checks.guards import folder
from spqr_checks.guards.base import Answer, GuardKind, GuardOptions, GuardRequest, TrainingRequest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spqr_checks.guards.text_encoder import TextEncoder

_NAME = "latent-guard"
_FIRST_TEMPERATURE = 0.07
Count = Annotated[int, Field(ge=1)]


class Options(GuardOptions):
    """``threshold``: of the score; that of the training if not given."""

    threshold: float | None = None


class Training(GuardOptions):
    """The authors' sizes, rate and batch; they go 1,000 times through 578 concepts."""

    steps: Count = 1000
    batch: Count = 64
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    heads: Count = 16
    head_width: Count = 32
    joint_width: Count = 128


def head(width: int, heads: int, head_width: int, joint_width: int) -> nn.Module:
    """The trained part: linear maps, and ``scale``, the logarithm of τ."""
    import torch
    from torch import nn

    inner = heads * head_width
    maps = nn.ModuleDict(
        {
            "key": nn.Linear(width, inner),
            "value": nn.Linear(width, inner),
            "query": nn.Linear(width, inner),
            "prompt": nn.Linear(inner, joint_width),
            "concept": nn.Linear(inner, joint_width),
        }
    )
    maps.register_parameter("scale", nn.Parameter(torch.tensor(math.log(1 / _FIRST_TEMPERATURE))))
    return maps


def scores(maps: Any, states: Tensor, concepts: Tensor, heads: int) -> Tensor:
    """τ × cosine of every prompt with every concept, shape (prompts, concepts).

    Args:
        states: the prompts' ends and tokens, shape (prompts, 1 + context, width).
        concepts: the ends of the concepts' names, shape (concepts, width).
    """
    import torch
    from torch.nn.functional import cosine_similarity

    def split(x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (heads, -1))

    keys, values = split(maps["key"](states)), split(maps["value"](states))  # (n, t, h, d)
    queries = maps["query"](concepts)
    asked = split(queries)  # (c, h, d)
    weights = torch.einsum("chd,nthd->ncht", asked, keys) / math.sqrt(asked.shape[-1])
    attended = torch.einsum("ncht,nthd->nchd", weights.softmax(-1), values).flatten(2)
    said = maps["prompt"](attended)
    wanted = maps["concept"](queries)[None]
    found: Tensor = maps.scale.exp() * cosine_similarity(said, wanted, dim=-1)
    return found


def contrastive_loss(harmful: Tensor, benign: Tensor) -> Tensor:
    """Cross-entropy both ways.

    Of each harmful prompt among its own concept, the other concepts, and each benign prompt at the
    concept that it is nearest to; of each concept among all prompts.

    Args:
        harmful: scores of prompt i with concept j, shape (n, n); i belongs to concept i.
        benign: scores of benign prompts with these concepts, shape (m, n).
    """
    import torch
    from torch.nn.functional import cross_entropy

    own = torch.arange(len(harmful), device=harmful.device)
    nearest = benign.amax(1).expand(len(harmful), -1)
    loss: Tensor = cross_entropy(torch.cat([harmful, nearest], 1), own)
    return loss + cross_entropy(torch.cat([harmful, benign]).T, own)


@dataclass(frozen=True)
class LatentGuard:
    """The head over the text encoder, and the ends of the concepts' names."""

    encoder: TextEncoder
    maps: Any
    concepts: Tensor
    heads: int
    threshold: float = 0.0

    def scores(self, prompts: Sequence[str]) -> list[float]:
        """The largest score of each prompt over the concepts."""
        import torch

        with torch.inference_mode():
            found = scores(self.maps, _states(self.encoder, prompts), self.concepts, self.heads)
        largest: list[float] = found.amax(1).tolist()
        return largest

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        return [Answer(score > self.threshold, score) for score in self.scores(prompts)]


def _states(encoder: TextEncoder, prompts: Sequence[str]) -> Tensor:
    import torch

    states, ends = encoder.encode(prompts)
    return torch.cat([ends[:, None], states], 1)


def _load(request: GuardRequest) -> LatentGuard:
    from safetensors.torch import load_file

    from spqr_checks.guards.text_encoder import load_text_encoder

    record = folder.read_record(request.source, _NAME)
    encoder = load_text_encoder(request.source, request.device)
    try:
        sizes = Training.model_validate(record.training)
        maps = head(encoder.width, sizes.heads, sizes.head_width, sizes.joint_width)
        maps.load_state_dict(load_file(Path(request.source).expanduser() / folder.WEIGHTS))
    except Exception as error:  # whatever does not fit
        said = str(error).splitlines()[0]
        raise UserError(f"{request.source}: {folder.WEIGHTS} does not fit: {said}") from error
    maps.to(request.device).eval().requires_grad_(False)
    ends = encoder.encode(record.concepts)[1]
    chosen = request.options.threshold
    threshold = record.threshold if chosen is None else chosen
    return LatentGuard(encoder, maps, ends, sizes.heads, threshold)


def _train(request: TrainingRequest, options: Training, out: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from spqr_checks.guards.text_encoder import load_text_encoder

    encoder = load_text_encoder(request.base)
    learned, _ = folder.split(request)
    by_concept: dict[str, list[str]] = {}
    for concept, text in learned.harmful:
        by_concept.setdefault(concept, []).append(text)
    names = list(by_concept)
    ends = encoder.encode(names)[1].clone()
    rng = random.Random(request.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        maps = head(encoder.width, options.heads, options.head_width, options.joint_width)
    optimiser = torch.optim.AdamW(
        maps.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    for _ in range(options.steps):
        chosen = rng.sample(range(len(names)), min(options.batch, len(names)))
        asking = [rng.choice(by_concept[names[index]]) for index in chosen]
        passing = [rng.choice(learned.benign) for _ in chosen]
        states = _states(encoder, asking + passing).clone()  # no inference tensors
        found = scores(maps, states, ends[chosen], options.heads)
        loss = contrastive_loss(found[: len(chosen)], found[len(chosen) :])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if not all(bool(torch.isfinite(tensor).all()) for tensor in maps.state_dict().values()):
        raise UserError(f"the training of {_NAME} diverged; give it a smaller learning_rate")
    maps.eval().requires_grad_(False)
    guard = LatentGuard(encoder, maps, encoder.encode(request.concepts)[1], options.heads)
    encoder.save(out)
    save_file(maps.state_dict(), out / folder.WEIGHTS)
    folder.finish(out, _NAME, request, guard.scores, options)


GUARD = GuardKind(
    Options,
    _load,
    "required",
    folder.contents(_NAME),
    ("torch", "transformers", "tokenizers", "safetensors"),
    Training,
    _train,
)
