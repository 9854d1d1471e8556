"""Models of transformers, from safetensors only, every weight where it belongs. Heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from spqr_checks.errors import UserError
from spqr_checks.metrics.preprocessing import quiet


def load_strictly(auto: Any, source: str, folder: Path, dtype: str, what: str) -> Any:
    """A model of the class ``auto`` from a folder that ``source`` stands for.

    Args:
        dtype: ``auto`` takes the weights' own.
        what: the kind of model, for messages.

    Raises:
        UserError: for a folder that cannot be loaded, or weights that do not fit.
    """
    try:
        with quiet():
            model, report = auto.from_pretrained(
                folder,
                dtype="auto" if dtype == "auto" else getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # any failure to load ends here, as a message
        raise UserError(f"{source}: cannot be loaded as a {what}: {error}") from error
    # transformers fills weights that a file lacks with random numbers and goes on
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found := sorted(map(str, report[kind])):
            raise UserError(
                f"{source}: weights do not fit the architecture in config.json: "
                f"{len(found)} {kind.replace('_', ' ')}, for example {found[0]}"
            )
    return model
