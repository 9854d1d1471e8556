"""SPM's facilitated transport: adapters that act as far as a prompt is about their concepts. Light.

Lyu et al., "One-dimensional Adapter to Rule Them All" (CVPR 2024, arXiv 2312.16145).
Each image of a batch has its own scores, since the adapters' terms are added to the outputs of
layers row by row; the weights stay the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator

from spqr_checks.errors import UserError
from spqr_checks.generation.guidance.base import Guidance

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from spqr_checks.choices import Sampler

FILE = "spm.safetensors"
Transport = Literal["paper", "compat"]
_A, _B = ".lora_A.weight", ".lora_B.weight"


class SpmGuidance(Guidance):
    """What each adapter is about, and how it is scaled; the factors lie in a file beside it.

    Attributes:
        concepts: by name of the adapter, the texts that a prompt is compared with; sorted, as the
            file has them, since sums depend on the order.
        alpha: of the adapters; they are scaled by alpha / rank.
        transport: ``paper``, ``Σ m_i B_i A_i``; ``compat``, ``(Σ m_i B_i)(Σ m_j A_j)``.
        metric: the score m: see the options of the method.
        weights: SHA-256 of the file of the factors.
    """

    kind: Literal["spm"] = "spm"
    reads_tokens: ClassVar[bool] = True
    concepts: dict[str, tuple[str, ...]]
    alpha: Annotated[float, Field(gt=0)]
    transport: Transport
    metric: Literal["cosine", "tokens", "both"]
    weights: str
    _factors: dict[str, Any] = PrivateAttr(default_factory=dict)
    _folder: Path | None = PrivateAttr(default=None)

    @field_validator("concepts")
    @classmethod
    def _sorted(cls, given: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return dict(sorted(given.items()))

    @classmethod
    def of(
        cls,
        factors: Mapping[str, Mapping[str, Tensor]],
        concepts: Mapping[str, tuple[str, ...]],
        **settings: Any,
    ) -> SpmGuidance:
        """A guidance with these factors: by adapter, then by layer, as adapters name them."""
        flat = {
            f"{name}:{key}": tensor.float().contiguous()
            for name in concepts
            for key, tensor in factors[name].items()
        }
        made = cls(concepts=dict(concepts), weights=_digest(flat), **settings)
        made._factors = flat
        return made

    @property
    def acts(self) -> bool:
        return bool(self.concepts)

    def check(self, pipe: DiffusionPipeline, sampler: Sampler) -> None:
        """Works with every sampler."""

    def write_files(self, folder: Path) -> None:
        from safetensors.torch import save_file

        save_file(self._factors, folder / FILE, metadata={"format": "pt"})

    def with_files(self, folder: Path) -> SpmGuidance:
        """Notes where the factors lie; they are read when a pipeline needs them."""
        noted = self.model_copy()
        noted._folder = folder
        return noted

    @property
    def factors(self) -> dict[str, Tensor]:
        """By ``adapter:layer``. UserError for a file that is not its own."""
        from spqr_checks.models.weights import read_tensors

        if self._folder is not None and not self._factors:
            path = self._folder / FILE
            if not path.is_file():
                raise UserError(f"{path} is missing, which holds SPM's adapters. Align again.")
            found = dict(read_tensors(path))
            if _digest(found) != self.weights:
                raise UserError(f"{path} is not the file that its guidance names. Align again.")
            self._factors = found
        return self._factors

    def prepare(self, pipe: DiffusionPipeline) -> SpmSteering:
        from spqr_checks.generation.conditions import encode
        from spqr_checks.generation.guidance.steering.evaluation import refuse_foreign

        refuse_foreign(pipe, self.kind)
        factors = self.factors
        if not factors:
            raise ValueError("SPM's factors were not read: load the guidance from its folder")
        if {key.rpartition(":")[0] for key in factors} != self.concepts.keys():
            raise UserError("SPM's adapters are not those of its concepts. Align again.")
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for name in self.concepts:
            for key in (k for k in factors if k.endswith(_A) and k.rpartition(":")[0] == name):
                layer = key.removeprefix(f"{name}:").removesuffix(_A)
                both = factors[key], factors[f"{name}:{layer}{_B}"]
                pairs.setdefault(layer, []).append(both)
        for layer, found in pairs.items():
            _refuse_misfit(pipe.unet, layer, found, len(self.concepts))
        embedded = [
            encode(pipe, texts).hidden.float().flatten(1) for texts in self.concepts.values()
        ]
        words = [[_words(pipe, text) for text in texts] for texts in self.concepts.values()]
        return SpmSteering(self, pairs, embedded, words)


GUIDANCE = SpmGuidance


def _digest(factors: Mapping[str, Tensor]) -> str:
    import hashlib

    total = hashlib.sha256()
    for name, tensor in sorted(factors.items()):
        total.update(f"{name}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return total.hexdigest()


def _refuse_misfit(
    unet: nn.Module, layer: str, pairs: list[tuple[Tensor, Tensor]], adapters: int
) -> None:
    """UserError where a layer is missing or of another shape, or an adapter lacks it."""
    try:
        weight: Any = unet.get_submodule(layer).weight
    except AttributeError:
        raise UserError(f"SPM's adapters need a layer {layer!r}, which this UNet lacks") from None
    shapes = {(a.shape[1:], b.shape[0]) for a, b in pairs}
    if len(pairs) != adapters or shapes != {(weight.shape[1:], weight.shape[0])}:
        raise UserError(f"SPM's adapters do not fit layer {layer!r} of this UNet")


def _words(pipe: DiffusionPipeline, text: str) -> frozenset[int]:
    """Tokens of a text without the special ones."""
    return frozenset(pipe.tokenizer(text, add_special_tokens=False).input_ids)


@dataclass(frozen=True)
class SpmSteering:
    """Adapters on their layers, and what prompts are compared with.

    Attributes:
        pairs: by layer, the factors A and B of each adapter.
        embedded: of each adapter, its texts' embeddings, shape (texts, tokens · width).
        words: of each adapter, the tokens of each text.
    """

    guidance: SpmGuidance
    pairs: Mapping[str, list[tuple[Tensor, Tensor]]]
    embedded: list[Tensor]
    words: list[list[frozenset[int]]]

    @contextmanager
    def around(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Adds the adapters' terms while the pipeline draws a batch."""
        call = _Call(self)
        with ExitStack() as hooks:
            hooks.enter_context(call.tokens.seen(pipe))
            asked = pipe.unet.register_forward_pre_hook(call.score, with_kwargs=True)
            hooks.callback(asked.remove)
            for path, pairs in self.pairs.items():
                layer = pipe.unet.get_submodule(path)
                hooks.callback(layer.register_forward_hook(call.adapting(pairs)).remove)
            yield

    def scores(self, hidden: Tensor, ids: list[list[int]]) -> Tensor:
        """How near each prompt is to each adapter's concept, shape (prompts, adapters).

        Args:
            hidden: token states, shape (prompts, tokens, width).
            ids: tokens of each prompt; special ones count as any other would.
        """
        import torch
        import torch.nn.functional as F

        flat, metric = hidden.float().flatten(1), self.guidance.metric
        columns = []
        for embedded, words in zip(self.embedded, self.words, strict=True):
            texts = embedded.to(flat.device)
            near = F.cosine_similarity(flat[:, None], texts[None], dim=2).max(1).values
            shared = [
                max(len(text & set(prompt)) / max(len(text), 1) for text in words) for prompt in ids
            ]
            overlap = near.new_tensor(shared)
            both = {"cosine": near, "tokens": overlap, "both": torch.maximum(near, overlap)}
            columns.append(both[metric])
        return torch.stack(columns, dim=1)


class _Call:
    """One call of the pipeline: its prompts' scores, one row for each row of the UNet's input."""

    def __init__(self, steering: SpmSteering) -> None:
        from spqr_checks.generation.guidance.steering.prompt_tokens import PromptTokens

        self.steering, self.tokens = steering, PromptTokens()
        self.rows: Any = None

    def score(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Scores the prompts once; both halves of guidance have those of the prompt."""
        if self.rows is None:
            hidden, ids = kwargs["encoder_hidden_states"], self.tokens.known.tolist()
            scores = self.steering.scores(hidden[-len(ids) :], ids)
            self.rows = scores.repeat(len(hidden) // len(ids), 1)

    def adapting(self, pairs: list[tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
        """A hook that adds the adapters' terms to a layer's output."""
        import torch.nn.functional as F

        compat = self.steering.guidance.transport == "compat"

        def through(x: Tensor, factor: Tensor) -> Tensor:
            factor = factor.to(x)
            return F.conv2d(x, factor) if factor.ndim == 4 else F.linear(x, factor)

        def add(_layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            x, rows = inputs[0], self.rows.to(output)
            shape = (-1, *[1] * (output.ndim - 1))
            scaled = [rows[:, k].view(shape) for k in range(len(pairs))]
            inner = [through(x, a) for a, _ in pairs]
            if compat:
                mixed = sum(m * one for m, one in zip(scaled, inner, strict=True))
                inner = [mixed] * len(pairs)
            for m, one, (a, b) in zip(scaled, inner, pairs, strict=True):
                output = output + m * (self.steering.guidance.alpha / len(a)) * through(one, b)
            return output

        return add
