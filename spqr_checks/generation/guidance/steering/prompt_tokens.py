"""Which tokens a pipeline's call reads, seen from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import DiffusionPipeline
from torch import Tensor, nn


class PromptTokens:
    """The prompts' tokens of one call, shape (prompts, tokens); None until they are encoded.

    A pipeline encodes prompts first, and negative ones after them.
    """

    def __init__(self) -> None:
        self.ids: Tensor | None = None

    @property
    def known(self) -> Tensor:
        """The tokens. RuntimeError before they are encoded."""
        if self.ids is None:
            raise RuntimeError("the pipeline asked its UNet before it encoded a prompt")
        return self.ids

    @contextmanager
    def seen(self, pipe: DiffusionPipeline) -> Iterator[None]:
        """Watches the pipeline's first text encoder."""

        def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.ids is None:
                self.ids = args[0] if args else kwargs["input_ids"]

        hook = pipe.text_encoder.register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()
