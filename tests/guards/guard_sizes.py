"""Sizes of guards that learn in seconds."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "embedding-distance": {},
    "latent-guard": {"steps": 200, "heads": 2, "head_width": 8, "joint_width": 8},
    "guardt2i": {"steps": 8, "width": 16, "heads": 2, "layers": 1, "batch": 4},
}
