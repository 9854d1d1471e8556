"""Models of transformers, from safetensors only, every weight where it belongs. Heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from spqr_checks.metrics.preprocessing import load_network


def load_strictly(auto: Any, source: str, folder: Path, dtype: str, what: str) -> Any:
    """A model of the class ``auto`` from a folder that ``source`` stands for, on the CPU.

    Args:
        dtype: ``auto`` takes the weights' own.
        what: the kind of model, for messages.

    Raises:
        UserError: for a folder that cannot be loaded, or weights that do not fit.
    """
    chosen: torch.dtype | Literal["auto"] = "auto" if dtype == "auto" else getattr(torch, dtype)
    return load_network(auto, folder, source, "cpu", dtype=chosen, what=f"a {what}")
