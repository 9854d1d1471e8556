"""LoRA experts trained on preferences, one after another on the same UNet, and their merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from spqr_checks.alignment.alignguard.options import AlignGuardOptions
from spqr_checks.alignment.method import unet_of
from spqr_checks.alignment.request import AlignmentRequest, Progress, Report
from spqr_checks.alignment.training import low_rank
from spqr_checks.alignment.training.activations import measure
from spqr_checks.alignment.training.low_rank import Lora
from spqr_checks.alignment.training.merging import Merged, merge
from spqr_checks.alignment.training.pair_images import Pairs, choose, joined, safety_pairs
from spqr_checks.alignment.training.preference import Preference
from spqr_checks.alignment.training.preference_training import (
    accuracy,
    kept_term,
    single_precision,
    train_adapter,
    with_kept,
)
from spqr_checks.alignment.training.trainables import ADAPTER
from spqr_checks.hashing import Json
from spqr_checks.models import adapters, weights

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def folder_name(category: str) -> str:
    """A category as the name of one folder on any file system."""
    return quote(category, safe=" ").replace(".", "%2E") or "%"


def align_by_experts(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: AlignGuardOptions,
    out: Path,
    report: Report,
) -> None:
    """Trains an expert per category, merges them, and writes the merged adapter and the experts.

    Every expert starts from the same random A and draws from a generator of the same seed, as
    separate runs of the authors' script would; it does not depend on the other categories.

    Raises:
        UserError: no UNet, a harmful prompt without an anchor, or a training that diverged; all
            before anything is written.
    """
    network = unet_of(pipe, "alignguard")
    base_digest = weights.weights_digest(network)
    names = list(dict.fromkeys(request.categories))
    chosen = {name: choose(request, options.pairs, name) for name in names}
    pairs = {name: safety_pairs(pipe, request, chosen[name], options.pairing) for name in names}
    if options.merge == "joint":
        pairs = {"joint": joined(list(pairs.values()))}
    kept = kept_term(pipe, request, options)
    experts: list[Lora] = []
    accuracies: list[float] = []
    with single_precision(network):
        for number, its_pairs in enumerate(pairs.values()):
            objective = _objective(pipe, request, its_pairs, options)
            train_adapter(
                network,
                with_kept(objective.loss, kept, options),
                options,
                targets=adapters.TARGETS,
                learning_rate=options.learning_rate or 1e-5 * options.batch,
                seed=request.seed,
                report=_of_all(report, number, len(pairs), options.steps),
            )
            experts.append(low_rank.read(network, ADAPTER))
            accuracies.append(accuracy(objective))
            adapters.remove(pipe, ADAPTER)
    merged = _merged(pipe, request, options, experts)
    if options.merge != "joint":
        for name, expert, its in zip(names, experts, accuracies, strict=True):
            record: dict[str, Json] = {"category": name, "implicit_accuracy": its}
            folder = out / "experts" / folder_name(name)
            _save(pipe, expert, folder, record | {"base_digest": base_digest})
            adapters.remove(pipe, ADAPTER)
    record = {
        "merge": options.merge,
        "experts": list(pairs),
        "implicit_accuracy": accuracies,
        "merge_error": merged.error,
        "base_digest": base_digest,
    }
    _save(pipe, merged.lora, out, record)


def _objective(
    pipe: DiffusionPipeline, request: AlignmentRequest, pairs: Pairs, options: AlignGuardOptions
) -> Preference:
    return Preference(
        pipe,
        request,
        pairs,
        beta=options.beta,
        batch=options.batch,
        caption_dropout=options.caption_dropout,
        error=options.error,
    )


def _merged(
    pipe: DiffusionPipeline,
    request: AlignmentRequest,
    options: AlignGuardOptions,
    experts: Sequence[Lora],
) -> Merged:
    if options.merge == "joint":
        (only,) = experts
        if options.truncate is None:
            return Merged(only)
        return Merged(*low_rank.truncated(only, options.truncate))
    measured = options.merge == "co-merge" and options.granularity != "entry"
    signals = (
        measure(
            pipe,
            request,
            experts,
            prompts_per_category=options.calibration,
            timesteps=options.calibration_timesteps,
        )
        if measured
        else None
    )
    return merge(
        experts,
        options.merge,
        signals=signals,
        statistic=options.statistic,
        granularity=options.granularity,
        density=options.density,
        rank=options.truncate,
    )


def _save(pipe: DiffusionPipeline, lora: Lora, folder: Path, record: dict[str, Json]) -> None:
    """Puts an adapter on the UNet and writes it; it stays there."""
    low_rank.put_on(pipe.unet, lora, ADAPTER, adapters.TARGETS)
    adapters.save_adapter(pipe, folder, ADAPTER, record)


def _of_all(report: Report, number: int, experts: int, steps: int) -> Report:
    """Reports an expert's progress as that of all of them."""

    def whole(progress: Progress) -> None:
        report(replace(progress, step=number * steps + progress.step, steps=experts * steps))

    return whole
