"""Compiled networks while images are drawn: torch.compile, weights laid out channels last.

What computes most is compiled: the denoiser and the decoder. Attention is torch's fused one with
or without. Sums are taken in another order, so that pixels differ in their last bits, and
``sampler.compile`` is part of what images are addressed by.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import MethodType
from typing import Any

from spqr_checks.errors import UserError

_SHAPES = 64
"""Sizes of batches that are compiled for one class of networks."""


@contextmanager
def compiled(pipe: Any, on: bool) -> Iterator[None]:
    """The pipeline's denoiser and decoder are compiled inside, and afterwards as they were.

    Compiled is the class's function and not the network: another state of the same architecture
    needs no compilation, and hooks on a network stay outside, where they are always called. While
    there are hooks on layers inside it, as those of SPM's adapters, the network runs uncompiled:
    compiled code does not ask whether there are any, and each batch brings hooks of its own.

    Raises:
        UserError: for a network whose weights wait in main memory, since its calls are another's.
    """
    if not on:
        yield
        return
    import torch
    import torch._dynamo

    decoder = getattr(getattr(pipe, "vae", None), "decoder", None)
    named = [getattr(pipe, name, None) for name in ("unet", "transformer", "transformer_2")]
    networks: list[Any] = [part for part in (*named, decoder) if isinstance(part, torch.nn.Module)]
    if any("forward" in vars(network) for network in networks):
        raise UserError("sampler.compile does not go with offload; leave one of them out")
    # past the limit torch would go on uncompiled, and pixels depend on what was drawn before
    limits: dict[str, Any] = {"recompile_limit": _SHAPES, "fail_on_recompile_limit_hit": True}
    with ExitStack() as stack:
        stack.enter_context(torch._dynamo.config.patch(limits))
        for network in networks:
            stack.callback(_plain, network)
            network.to(memory_format=torch.channels_last)
            kind: Any = type(network)
            network.forward = MethodType(_unless_hooked(_compiled(kind), kind.forward), network)
        yield


def _unless_hooked(fast: Any, plain: Any) -> Any:
    def forward(network: Any, *args: Any, **kwargs: Any) -> Any:
        # asked at each call, since guidance hooks itself in only once its batch begins
        layers = (layer for layer in network.modules() if layer is not network)
        hooked = any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
        return (plain if hooked else fast)(network, *args, **kwargs)

    return forward


def _plain(network: Any) -> None:
    import torch

    vars(network).pop("forward", None)
    network.to(memory_format=torch.contiguous_format)


@cache
def _compiled(kind: Any) -> Any:
    import torch

    return torch.compile(kind.forward, dynamic=False)
