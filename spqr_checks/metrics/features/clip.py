"""Unit-norm CLIP image embeddings, which CMMD is defined on."""

from __future__ import annotations

from spqr_checks.metrics.features import Extractor, FeaturesKind
from spqr_checks.metrics.model_metrics import Needs


def _load(source: str, device: str) -> Extractor:
    from spqr_checks.metrics.clip import load_clip

    return load_clip(source, device)


FEATURES = FeaturesKind(_load, Needs(loads_on_meta=True))
