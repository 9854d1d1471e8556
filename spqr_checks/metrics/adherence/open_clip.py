"""The cosine of `clip` by a model of the open_clip library, in its own format.

A folder or Hub id with ``open_clip_config.json`` and ``open_clip_model.safetensors``. What is
said of ratios at `clip` holds here as well. Needs the extra ``open-clip`` (open_clip 3.0 or
later, and torchvision with it).
"""

from __future__ import annotations

from spqr_checks.metrics.adherence.base import AdherenceKind, Scorer
from spqr_checks.metrics.needs import COMMON, Needs


def _load(source: str, device: str) -> Scorer:
    from spqr_checks.metrics.backbones.open_clip_model import load_open_clip

    return load_open_clip(source, device)


ADHERENCE = AdherenceKind(
    scale="cosine",
    load=_load,
    needs=Needs(
        packages=(*COMMON, "open-clip-torch", "torchvision"),
        extra="open-clip",
    ),
)
