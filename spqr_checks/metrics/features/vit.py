"""Pooled features of any vision backbone of transformers: DINOv2, ViT, Swin, ConvNeXt, ResNet, …

As they come out of the network, not normalised. On DINOv2 the Fréchet distance agrees with people
better than on Inception (Stein et al. 2023).
"""

from __future__ import annotations

from spqr_checks.metrics.features.base import Extractor, FeaturesKind
from spqr_checks.metrics.needs import Needs


def _load(source: str, device: str) -> Extractor:
    from spqr_checks.metrics.backbones.backbone import load_backbone

    return load_backbone(source, device)


FEATURES = FeaturesKind(
    load=_load,
    needs=Needs(),
)
