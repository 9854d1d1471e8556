"""An evaluation of the denoiser by a pipeline, seen from outside: hooked, repeated, replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from spqr_checks.errors import UserError
from spqr_checks.models.weights import denoiser_of

AskedT = TypeVar("AskedT")
"""An evaluation as a guidance reads it."""
_PASSED_ON = frozenset({"cross_attention_kwargs", "timestep_cond"})
_ASKED = frozenset({"encoder_hidden_states", "added_cond_kwargs", "return_dict"})


def refuse_foreign(pipe: DiffusionPipeline, kind: str) -> None:
    """UserError for a pipeline whose sampling loop is not known here."""
    if not isinstance(pipe, (StableDiffusionPipeline, StableDiffusionXLPipeline)):
        raise UserError(
            f"guidance {kind!r} steers Stable Diffusion 1, 2 and XL; this pipeline is a "
            f"{type(pipe).__name__}"
        )


@dataclass(frozen=True)
class Evaluation:
    """What a pipeline asked of its UNet, and what it predicted.

    With classifier-free guidance there are two rows per image: first all without the prompt, then
    all with it.

    Attributes:
        sample: scaled latents, shape (rows, channels, h, w).
        t: the timestep, a scalar.
        hidden: token states, shape (rows, tokens, width).
        added: SDXL's ``text_embeds`` and ``time_ids``, one row each per row of ``sample``.
        predicted: shape of ``sample``.
    """

    network: nn.Module
    sample: Tensor
    t: Tensor
    hidden: Tensor
    added: Mapping[str, Tensor]
    rest: Mapping[str, Any]
    predicted: Tensor

    @classmethod
    def of(
        cls, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Evaluation:
        """Raises ValueError for inputs that ``again`` could not split by rows."""
        sample, t = args
        rest = {name: value for name, value in kwargs.items() if name not in _ASKED}
        foreign = sorted(k for k, v in rest.items() if v is not None and k not in _PASSED_ON)
        if foreign:
            raise ValueError(f"guidance does not know the UNet's input {foreign[0]!r}")
        return cls(
            network,
            sample,
            t,
            kwargs["encoder_hidden_states"],
            kwargs.get("added_cond_kwargs") or {},
            rest,
            output[0],
        )

    @property
    def pooled(self) -> Tensor | None:
        """SDXL's pooled embeddings, shape (rows, width)."""
        return self.added.get("text_embeds")

    def again(
        self, sample: Tensor, hidden: Tensor, pooled: Tensor | None, rows: slice = slice(None)
    ) -> Tensor:
        """The network's prediction for other latents and prompts in (some of) the same rows."""
        added = {name: tensor[rows] for name, tensor in self.added.items()}
        if pooled is not None:
            added["text_embeds"] = pooled
        predicted: Tensor = self.network(
            sample,
            self.t,
            encoder_hidden_states=hidden,
            added_cond_kwargs=added or None,
            return_dict=False,
            **self.rest,
        )[0]
        return predicted


@contextmanager
def steered(
    pipe: DiffusionPipeline,
    read: Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], AskedT],
    steer: Callable[[AskedT], Tensor | None],
) -> Iterator[None]:
    """Hands every evaluation of the denoiser to ``steer``, which may predict something else.

    ``read`` makes an evaluation of network, arguments and answer. A forward hook, so that other
    hooks see every evaluation too: that of the pipeline, which stays bit-identical to one without
    guidance, and each further one that ``steer`` makes.
    """
    busy = False

    def hook(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        nonlocal busy
        if busy:
            return None
        busy = True
        try:
            predicted = steer(read(network, args, kwargs, output))
        finally:
            busy = False
        return None if predicted is None else (predicted, *output[1:])

    handle = denoiser_of(pipe).register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
