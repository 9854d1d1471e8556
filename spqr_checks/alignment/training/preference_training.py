"""What trains one LoRA adapter on preferences and writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from spqr_checks.alignment.request import AlignmentRequest, Report
from spqr_checks.alignment.training.kept import Kept
from spqr_checks.alignment.training.preference import Preference
from spqr_checks.alignment.training.preference_options import PreferenceOptions
from spqr_checks.alignment.training.trainables import ADAPTER
from spqr_checks.alignment.training.training import optimise
from spqr_checks.hashing import Json
from spqr_checks.models import adapters, weights

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_LAST = 100
"""Steps at the end of a training whose mean accuracy is put on record."""


@contextmanager
def single_precision(network: nn.Module) -> Iterator[None]:
    """The network in float32 while something is trained on it, then in its own dtype again."""
    dtype = next(network.parameters()).dtype
    network.float().eval()
    try:
        yield
    finally:
        network.to(dtype)


def train_adapter(
    network: nn.Module,
    loss: Callable[[], Tensor],
    options: PreferenceOptions,
    *,
    targets: Sequence[str],
    learning_rate: float,
    seed: int,
    report: Report,
) -> None:
    """Attaches a fresh adapter, trains it on the loss and leaves it on the network, frozen."""
    alpha = options.rank if options.alpha is None else options.alpha
    optimise(
        adapters.add_lora(network, options.rank, alpha, targets, seed, ADAPTER),
        lambda _: loss(),
        steps=options.steps,
        learning_rate=learning_rate,
        warmup=options.warmup,
        schedule=options.schedule,
        report=report,
        weight_decay=options.weight_decay,
        clip=options.clip,
    )
    network.requires_grad_(False)


def kept_term(
    pipe: DiffusionPipeline, request: AlignmentRequest, options: PreferenceOptions
) -> Kept | None:
    """The preservation term, if it is wanted and there are prompts to keep."""
    wanted = options.keep_weight > 0 and (request.keep or request.lookalikes)
    return Kept(pipe, request, options) if wanted else None


def with_kept(
    loss: Callable[[], Tensor], kept: Kept | None, options: PreferenceOptions
) -> Callable[[], Tensor]:
    """A loss plus the weighted preservation term, which starts from its first batch."""
    if kept is None:
        return loss
    kept.restart()
    return lambda: loss() + options.keep_weight * kept.loss()


def accuracy(objective: Preference) -> float:
    """Implicit accuracy at the end of a training: share of pairs with a positive margin."""
    last = objective.accuracies[-_LAST:]
    return sum(last) / len(last)


def align_by_preference(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: PreferenceOptions,
    out: Path,
    report: Report,
    objective: Preference,
    *,
    targets: Sequence[str],
    learning_rate: float,
    loss: Callable[[], Tensor] | None = None,
) -> None:
    """Trains one adapter and writes it, with its implicit accuracy on record.

    Args:
        objective: the pairs' loss.
        targets: endings of the names of the layers to adapt.
        loss: what is descended, if it is more than the objective's own loss.

    Raises:
        UserError: the training diverged; nothing is written then.
    """
    network: nn.Module = pipe.unet
    base_digest = weights.weights_digest(network)
    kept = kept_term(pipe, request, options)
    with single_precision(network):
        train_adapter(
            network,
            with_kept(loss or objective.loss, kept, options),
            options,
            targets=targets,
            learning_rate=learning_rate,
            seed=request.seed,
            report=report,
        )
        record: dict[str, Json] = {
            "base_digest": base_digest,
            "implicit_accuracy": accuracy(objective),
        }
        adapters.save_adapter(pipe, out, ADAPTER, record)
