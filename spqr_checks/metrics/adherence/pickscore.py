"""PickScore (Kirstain et al. 2023, "Pick-a-Pic", equation 1): a CLIP tuned on human preferences.

s(x, y) = exp(τ) · cos(E_text(x), E_image(y)) with the model's own logit scale exp(τ). Scores lie
around 20 for anything; only differences between images of one prompt mean something, as
p(y₁ preferred to y₂) = σ(s(x, y₁) − s(x, y₂)). P is therefore a preference over the base, not a
ratio of scores; see `checks.adherence.against_base`.
"""

from __future__ import annotations

from spqr_checks.metrics.adherence import AdherenceKind, Scorer
from spqr_checks.metrics.model_metrics import Needs


def _load(source: str, device: str) -> Scorer:
    from spqr_checks.metrics.clip import Cosines, load_clip

    return Cosines(load_clip(source, device), logits=True)


ADHERENCE = AdherenceKind("logit", _load, Needs(loads_on_meta=True))
