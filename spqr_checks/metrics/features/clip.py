"""Unit-norm CLIP image embeddings, which CMMD is defined on."""

from __future__ import annotations

from spqr_checks.metrics.features.base import Extractor, FeaturesKind
from spqr_checks.metrics.needs import Needs


def _load(source: str, device: str) -> Extractor:
    from spqr_checks.metrics.backbones.embeddings import Embeddings
    from spqr_checks.metrics.clip import load_clip

    return Embeddings(load_clip(source, device))


FEATURES = FeaturesKind(
    load=_load,
    needs=Needs(),
)
