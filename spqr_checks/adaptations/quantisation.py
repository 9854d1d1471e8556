"""Weight-only quantisation by torchao, which `int8`, `int4` and `fp8` share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from spqr_checks.adaptations.kind import AdaptationKind, Given, name_of
from spqr_checks.errors import UserError
from spqr_checks.packages import importing

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_EXTRA = "quantised"


class Quantised(AdaptationKind):
    """Weights of linear layers in few bits: activations and convolutions stay as they are.

    Attributes:
        text_encoders: whether those of the text encoders too, as is done with T5.
    """

    packages: ClassVar[tuple[str, ...]] = (*AdaptationKind.packages, "torchao")
    extra: ClassVar[str | None] = _EXTRA
    slows: ClassVar[bool] = True

    text_encoders: bool = False

    @abstractmethod
    def config(self) -> Any:
        """torchao's configuration."""

    def fits(self, width: int) -> bool:
        """Whether a layer of so many inputs can be quantised."""
        return True

    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        from torch import nn

        from spqr_checks.models.weights import denoiser_of, networks

        chosen = [denoiser_of(pipe)]
        if self.text_encoders:
            parts = networks(pipe)
            chosen += [parts[name] for name in sorted(parts) if name.startswith("text_encoder")]

        def taken(module: nn.Module, _name: str) -> bool:
            return isinstance(module, nn.Linear) and self.fits(module.in_features)

        with importing(f"adaptation {name_of(self)!r}", "torchao", extra=_EXTRA), _discreet():
            from torchao.quantization import quantize_

            for network in chosen:
                if not any(taken(module, "") for module in network.modules()):
                    raise UserError(
                        f"adaptation {name_of(self)!r}: no layer of {type(network).__name__} can "
                        "be quantised with these options"
                    )
                quantize_(network, self.config(), filter_fn=taken)
        return pipe


@contextmanager
def _discreet() -> Iterator[None]:
    """torchao logs which of its kernels are for other machines; without them torch computes."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
