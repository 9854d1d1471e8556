"""What determines a metric's value on given images. Light: imports no torch."""

from __future__ import annotations

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, library_version, source_digest
from spqr_checks.models import sources

METRICS = ("alignment", "features")


def metric_recipe(name: str, source: str) -> dict[str, Json]:
    """Recipe of a metric that a CLIP model computes on images.

    Args:
        name: one of ``METRICS``.
        source: the CLIP model.

    Raises:
        UserError: for an unknown metric or a source that is not there.
    """
    if name not in METRICS:
        raise UserError(f"unknown metric {name!r}; there are: {', '.join(METRICS)}")
    return {
        "metric": name,
        "source": sources.source_recipe(source),
        "code": source_digest("metrics"),
        "versions": {
            package: library_version(package)
            for package in ("torch", "transformers", "tokenizers", "numpy", "pillow")
        },
    }
