"""What frozen networks made of texts and pictures: computed once, whatever state asks. Heavy.

States differ in their denoisers; text encoders and autoencoders are mostly the base's. An answer is
known by the content of the networks and of what they are given, a whole batch at a time, since the
last bits depend on what is computed together. So the bytes are those that would be computed.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from spqr_checks.hashing import Json, digest
from spqr_checks.models.lora_layers import attached_adapters
from spqr_checks.models.weights import Seen, weights_digest

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

MOST_BYTES = 2**29
"""Of answers in main memory; those that were asked for longest ago go first."""
Answer = tuple[Tensor | None, ...]
_Kept = tuple[tuple[Tensor, torch.device] | None, ...]
_PLAIN = (str, int, float, bool, type(None), torch.device, torch.dtype)

_answers: OrderedDict[str, _Kept] = OrderedDict()
_networks: WeakKeyDictionary[nn.Module, tuple[Seen, str]] = WeakKeyDictionary()
_tokenizers: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()


def forget() -> None:
    """Keeps no answers any more."""
    _answers.clear()


def recalled(
    parts: Mapping[str, Any], asked: Sequence[Json], compute: Callable[[], Answer]
) -> Answer:
    """What ``compute`` answers, or answered when equal networks were asked the same.

    Networks that train, or bear adapters or hooks, are asked anew each time.

    Args:
        parts: networks and tokenizers that decide the answer, by name.
        asked: what they are asked, as plain values.
        compute: gives tensors that are the caller's own.
    """
    known = {name: _content(part) for name, part in parts.items()}
    if None in known.values():
        return compute()
    device = next((p.device for part in parts.values() for p in _parameters(part)), None)
    how: list[Json] = [
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        str(device),
    ]
    key = digest([known, list(asked), how, torch.is_autocast_enabled()])
    if key not in _answers:
        answer = compute()
        _keep(key, answer)
        return answer
    _answers.move_to_end(key)
    with torch.inference_mode(False):
        kept = _answers[key]
        return tuple(one and one[0].to(one[1], copy=True) for one in kept)


@contextmanager
def remembering(pipe: DiffusionPipeline) -> Iterator[None]:
    """For the length of the ``with`` block ``encode_prompt`` of a pipeline answers from memory."""
    own = getattr(pipe, "encode_prompt", None)
    if own is None or "encode_prompt" in vars(pipe):
        yield
        return
    takes = inspect.signature(own)

    def encode_prompt(*given: Any, **named: Any) -> Any:
        said = takes.bind(*given, **named).arguments
        parts = {
            name: part
            for name, part in pipe.components.items()
            if name.startswith(("text_encoder", "tokenizer")) and part is not None
        }
        kind = f"{type(pipe).__module__}.{type(pipe).__qualname__}"
        if not parts or not all(map(_is_plain, said.values())):
            return own(*given, **named)
        shown = [kind, [[name, _shown(value)] for name, value in said.items()]]
        return recalled(parts, shown, lambda: own(*given, **named))

    vars(pipe)["encode_prompt"] = encode_prompt
    try:
        yield
    finally:
        del vars(pipe)["encode_prompt"]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, _PLAIN)


def _shown(value: Any) -> Any:
    return str(value) if isinstance(value, torch.device | torch.dtype) else value


def _keep(key: str, answer: Answer) -> None:
    if not isinstance(answer, tuple) or not all(
        one is None or isinstance(one, Tensor) for one in answer
    ):
        return
    with torch.inference_mode(False):
        _answers[key] = tuple(
            None if one is None else (one.detach().to("cpu", copy=True), one.device)
            for one in answer
        )
    while sum(map(_size, _answers.values())) > MOST_BYTES:
        _answers.popitem(last=False)


def _size(kept: _Kept) -> int:
    return sum(one[0].numel() * one[0].element_size() for one in kept if one is not None)


def _parameters(part: Any) -> Iterator[Tensor]:
    return part.parameters() if isinstance(part, nn.Module) else iter(())


def _content(part: Any) -> str | None:
    """Digest of a network or a tokenizer; None for what may answer otherwise each time."""
    if not isinstance(part, nn.Module):
        return _tokenizer(part)
    if part.training or attached_adapters(part) or any(map(_is_hooked, part.modules())):
        return None
    seen, known = _networks.get(part, (None, ""))
    if seen is None or not seen.still_is(part):
        about = [type(part).__qualname__, str(getattr(part, "config", ""))]
        try:
            known = digest([*about, weights_digest(part)])
        except (TypeError, RuntimeError):  # tensors of quantised kinds have no plain bytes
            return None
        _networks[part] = (Seen.of(part), known)
    return known


def _is_hooked(module: nn.Module) -> bool:
    hooks = module._forward_hooks or module._forward_pre_hooks
    return bool(hooks) or "forward" in vars(module)


def _tokenizer(tokenizer: Any) -> str | None:
    size, known = _tokenizers.get(tokenizer, (-1, ""))
    if size != len(tokenizer):
        known = digest([repr(tokenizer), sorted(tokenizer.get_vocab().items())])
        _tokenizers[tokenizer] = (len(tokenizer), known)
    return known
