"""Options that the preference methods share. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Options

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class PreferenceOptions(Options):
    """What every preference method can be told; the defaults are AlignGuard's (its launcher).

    Attributes:
        beta: β of DPO, how closely the base is kept to.
        rank: of the LoRA adapter.
        alpha: of the adapter; its rank if not given.
        steps, batch: batches are of pairs.
        learning_rate: of AdamW; ``warmup`` steps and then ``schedule``. If not given, the method's
            own rule.
        weight_decay, clip: of AdamW; ``clip`` is the largest norm of all gradients together.
        caption_dropout: probability that a caption is replaced by "" in training.
        pairs: pairs drawn per category; one per harmful prompt if not given.
        error: what a squared error is taken of: the network's ``native`` target, or the noise
            (``epsilon``), which is the same for networks that predict noise.
        keep_weight: weight of an addition of ours: the aligned model predicts what the base
            predicts for prompts to keep. 0 leaves it out.
        keep_batch: prompts to keep per step; ``batch`` if not given.
        pool: most latents that are drawn of prompts to keep.
        lookalike_share: share of them from the look-alikes, where these are known.
        keep_unconditional: share of them replaced by the empty prompt.
    """

    beta: Positive = 5000.0
    rank: Count = 4
    alpha: Positive | None = None
    steps: Count = 2000
    batch: Count = 4
    learning_rate: Positive | None = None
    warmup: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: Weight = 1e-2
    clip: Positive | None = 1.0
    caption_dropout: Share = 0.2
    pairs: Count | None = None
    error: Literal["native", "epsilon"] = "native"
    keep_weight: Weight = 0.0
    keep_batch: Count | None = None
    pool: Count = 256
    lookalike_share: Share = 0.5
    keep_unconditional: Share = 0.1
