"""VQAScore (Lin et al. 2024): how probable a model that sees the image finds the answer "Yes".

P("Yes" | image, 'Does this figure show "{prompt}"? Please answer yes or no.'), equation 2 there.
The paper takes the one token "Yes"; here the tokens of its spellings with and without capitals
and a space before are added up, as which of them a model uses is its tokenizer's affair. A model
whose first token is neither yes nor no with at least half of its probability has not answered,
which is an error.

Any transformers model of the kind image-text-to-text with a chat template, or BLIP's for visual
questions. It is a probability with a true zero, so that a ratio to the base is meaningful.
"""

from __future__ import annotations

from spqr_checks.metrics.adherence.base import AdherenceKind, Scorer
from spqr_checks.metrics.needs import Needs


def _load(source: str, device: str) -> Scorer:
    from spqr_checks.metrics.backbones.questions import load_questioner

    return load_questioner(source, device)


ADHERENCE = AdherenceKind(
    scale="probability",
    load=_load,
    needs=Needs(),
)
