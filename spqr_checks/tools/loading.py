"""Text models of transformers and their tokenizers: safetensors only, no code of theirs. Heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import AutoTokenizer

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json
from spqr_checks.metrics.preprocessing import load_network, quiet
from spqr_checks.models import sources
from spqr_checks.packages import remedy

DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_model(
    auto: Any, source: str, device: str, dtype: str, what: str
) -> tuple[Any, Path, dict[str, Json]]:
    """The model of a source, every weight where it belongs, its folder and its files' digests.

    Args:
        auto: a class of transformers.
        dtype: one of `DTYPES`; ``auto`` takes the weights' own.
        what: the kind of model, for messages.

    Raises:
        UserError: for another dtype, a source that cannot be loaded, or weights that do not fit.
    """
    chosen = precision(dtype)
    folder, recipe = sources.resolve(source), sources.source_recipe(source)
    return load_network(auto, folder, source, device, chosen, f"a {what}"), folder, recipe


def precision(dtype: str) -> torch.dtype | Literal["auto"]:
    """What transformers calls a precision; raises UserError for none of `DTYPES`."""
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}; there are: {', '.join(DTYPES)}")
    return "auto" if dtype == "auto" else cast(torch.dtype, getattr(torch, dtype))


def load_tokenizer(folder: Path, source: str | Path, advice: str = "") -> Any:
    """The tokenizer of a folder; raises UserError, with the advice, if it cannot be loaded."""
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # any failure to load ends here, as a message
        said = remedy(error) or f"{error}{advice}"
        raise UserError(f"{source}: its tokenizer cannot be loaded: {said}") from error
