"""PickScore (Kirstain et al. 2023, "Pick-a-Pic", equation 1): a CLIP tuned on human preferences.

s(x, y) = exp(τ) · cos(E_text(x), E_image(y)) with the model's own logit scale exp(τ). Scores lie
around 20 for anything; only differences between images of one prompt mean something, as
p(y₁ preferred to y₂) = σ(s(x, y₁) − s(x, y₂)). P is therefore a preference over the base, not a
ratio of scores; see `checks.adherence.against_base`.
"""

from __future__ import annotations

from spqr_checks.metrics.adherence import AdherenceKind, Scorer


def _load(source: str, device: str) -> Scorer:
    from spqr_checks.metrics.clip import Cosines, load_clip

    clip = load_clip(source, device)
    return Cosines(clip, clip.logit_scale)


ADHERENCE = AdherenceKind("logit", _load)
