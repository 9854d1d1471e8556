"""Text models of transformers: safetensors only, no code of theirs. Heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spqr_checks.hashing import Json
from spqr_checks.models import sources
from spqr_checks.models.pretrained import load_network, precision


def load_model(
    auto: Any, source: str, device: str, dtype: str, what: str
) -> tuple[Any, Path, dict[str, Json]]:
    """The model of a source, every weight where it belongs, its folder and its files' digests.

    Args:
        auto: a class of transformers.
        dtype: one of `pretrained.DTYPES`; ``auto`` takes the weights' own.
        what: the kind of model, for messages.

    Raises:
        UserError: for another dtype, a source that cannot be loaded, or weights that do not fit.
    """
    chosen = precision(dtype)
    folder, recipe = sources.resolve(source), sources.source_recipe(source)
    return load_network(auto, folder, source, device, chosen, f"a {what}"), folder, recipe
