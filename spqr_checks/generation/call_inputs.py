"""What a pipeline is asked besides the prompt, or in its stead, carried by the pipeline itself.

A model with a learned word is asked with the word, a pipeline that starts from pictures is given
them. Latents stay those of the plain prompt and its seed, so that images remain comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Inputs: TypeAlias = Callable[[Sequence[str]], dict[str, Any]]
"""Plain prompts → arguments of the pipeline's call, one entry for each prompt where listed."""

_NAME = "_spqr_inputs"


def carry_inputs(pipe: Any, inputs: Inputs) -> None:
    """Has the pipeline asked so, from now on."""
    setattr(pipe, _NAME, inputs)


def carried_inputs(pipe: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """What is asked besides of a pipeline that carries something; else nothing."""
    inputs: Inputs | None = getattr(pipe, _NAME, None)
    return {} if inputs is None else inputs(prompts)
