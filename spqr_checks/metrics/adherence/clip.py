"""Cosine of CLIP's embeddings of image and prompt (CLIPScore's, Hessel et al. 2021).

Raw cosines: neither multiplied (by 2.5 or 100) nor cut off at zero. Any ``CLIPModel`` of
transformers, or a SigLIP with a fixed resolution.

The ratio to the base is not that of a quantity with a true zero: unrelated pairs have cosines of
0.1 to 0.2 rather than 0, so that 0.9 of the base is more lost than a tenth.
"""

from __future__ import annotations

from spqr_checks.metrics.adherence import AdherenceKind, Scorer
from spqr_checks.metrics.model_metrics import Needs


def _load(source: str, device: str) -> Scorer:
    from spqr_checks.metrics.clip import Cosines, load_clip

    return Cosines(load_clip(source, device, kinds=("clip", "siglip")))


ADHERENCE = AdherenceKind("cosine", _load, Needs(loads_on_meta=True))
