"""Options that several methods share. Light: no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from spqr_checks.alignment.method import Options

Trains = Literal["x", "x-strict", "u", "u-current", "all"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]


class TrainingOptions(Options):
    """What every method that trains can be told.

    Attributes:
        steps, batch: of the optimiser; ``warmup`` steps and then ``schedule``. A warm-up that is
            not given is the method's own, mostly none.
        cycles: times that the cosine falls and begins anew.
        accumulation: batches that make one step together.
        alpha: of the LoRA adapter; its rank if not given.
        pool: most latents of one pool; prompts to keep have one, and what else is drawn into pools
            is said at each method.
        keep_weight: weight of the preservation loss, an addition of ours: the model predicts what
            the base predicts for prompts to keep. 0 leaves it out.
        keep_batch: prompts to keep per step; ``batch`` if not given.
        lookalike_share: share of them drawn from the look-alikes, where these are known.
        keep_unconditional: share of them dropped, for what guidance takes for no prompt.
    """

    steps: Count = 1000
    batch: Count = 1
    accumulation: Count = 1
    warmup: Whole | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    cycles: Count = 1
    alpha: Positive | None = None
    pool: Count = 256
    keep_weight: Weight = 0.0
    keep_batch: Count | None = None
    lookalike_share: Share = 0.5
    keep_unconditional: Share = 0.1


class ErasingOptions(TrainingOptions):
    """What ESD, SDD and concept ablation can all be told; the defaults are ESD's.

    Attributes:
        trains: ``x`` cross-attention, ``x-strict`` only its keys and values, ``all`` the whole
            UNet. ``u`` everything but cross-attention, the embedding of time and the output
            layers, as ESD's original code (noxattn); ``u-current`` every linear layer and
            convolution outside cross-attention, as its current code (esd-u). With an adapter,
            both mean self-attention and feed-forward layers, and ``all`` these and
            cross-attention.
        start_guidance: guidance scale of the latents that are drawn for training.
        sampling_steps: steps of these drawings; those of the run's sampler if not given.
        learning_rate: of Adam.
        rank: of a LoRA adapter; 0 trains the weights themselves.
    """

    trains: Trains = "x"
    start_guidance: Weight = 3.0
    sampling_steps: Count | None = None
    learning_rate: Positive = 1e-5
    rank: Whole = 0


class PreferenceOptions(TrainingOptions):
    """What every preference method can be told; the defaults are those of AlignGuard's launcher.

    A batch is of pairs.

    Attributes:
        beta: β of DPO, how closely the base is kept to.
        rank: of the LoRA adapter.
        optimiser: ``adamw``, or ``adafactor`` without its relative steps and scales. If not given,
            the method's own, mostly the first.
        learning_rate: if not given, the method's own rule.
        weight_decay, clip: of the optimiser; ``clip`` is the largest norm of all gradients
            together.
        caption_dropout: probability that a caption is replaced by "" in training.
        pairs: pairs drawn per category; one per harmful prompt if not given.
        error: what a squared error is taken of: the network's ``native`` target, or the noise
            (``epsilon``), which is the same for networks that predict noise.
    """

    beta: Positive = 5000.0
    rank: Count = 4
    steps: Count = 2000
    batch: Count = 4
    optimiser: Literal["adamw", "adafactor"] | None = None
    learning_rate: Positive | None = None
    weight_decay: Weight = 1e-2
    clip: Positive | None = 1.0
    caption_dropout: Share = 0.2
    pairs: Count | None = None
    error: Literal["native", "epsilon"] = "native"
