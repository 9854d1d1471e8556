"""AlignGuard (SafetyDPO): a DPO expert per category of harm, merged into one LoRA.

Liu et al., "AlignGuard: Scalable Safety Alignment for Text-to-Image Generation" (ICCV 2025, arXiv
2412.10493). Loss and defaults of the experts are those of the authors' code. Their images, their
pairs' captions in part and Co-Merge were not published: here the base draws the pairs itself,
and Co-Merge is our reconstruction (see ``training.merging``).

Deviations: latents as the sampler leaves them instead of encoded image files, and no random flips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

from pydantic import Field

from spqr_checks.alignment.method import Method
from spqr_checks.alignment.request import AlignmentRequest, Progress, Report
from spqr_checks.alignment.training.options import (
    Count,
    Positive,
    PreferenceOptions,
    Weight,
)
from spqr_checks.hashing import Json

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from spqr_checks.alignment.training.low_rank import Lora
    from spqr_checks.alignment.training.merging import Merged
    from spqr_checks.alignment.training.views import View


class AlignGuardOptions(PreferenceOptions):
    """Options of AlignGuard beside those of all preference methods.

    A step takes 16 pairs, 4 at a time. What is not given of ``optimiser``, ``learning_rate`` and
    ``warmup`` is as in the authors' two launchers: AdamW, 1e-5 · pairs of a step (``--scale_lr``)
    and 500 steps; with SDXL Adafactor, 1e-5 and none. Transformers, for which there is no launcher,
    are trained as SDXL, the nearer to them in size.

    Attributes:
        pairing: the caption of a pair is its harmful prompt (``unsafe_prompt``), or it is there
            twice, with the harmful and with the safe prompt (``both``).
        merge: how experts become one adapter; ``joint`` trains one on all data instead
            ("All-single" in the paper).
        statistic: ``co-merge`` counts for which expert the signal was the largest most often
            (``vote``), or compares their means.
        granularity: what ``co-merge`` gives to one expert: an output unit (``row``), a layer
            (``matrix``), an entry, or rows of the factors A and B.
        density: share of the entries that ``ties`` keeps.
        truncate: rank that the merged adapter is cut to. If not given, exact merges are not cut,
            and those that are no low-rank product have rank · number of categories.
        calibration: prompts per category that ``co-merge`` measures signals on, and ``regmean``
            the inputs of layers.
        calibration_timesteps: at how many timesteps they do.
        regmean_scale: how strong ``regmean`` makes what it merges; 1 is the paper's.
        regmean_keep: weight of prompts to keep in it.
        ridge: weight of a small result in it.
    """

    accumulation: Count = 4
    pairing: Literal["unsafe_prompt", "both"] = "unsafe_prompt"
    merge: Literal["co-merge", "average", "sum", "ties", "regmean", "joint"] = "co-merge"
    statistic: Literal["vote", "mean"] = "vote"
    granularity: Literal["row", "matrix", "entry", "factor_rows"] = "row"
    density: Annotated[float, Field(gt=0, le=1)] = 0.2
    truncate: Count | None = None
    calibration: Count = 8
    calibration_timesteps: Count = 4
    regmean_scale: Positive = 1.0
    regmean_keep: Weight = 1.0
    ridge: Positive = 1e-3


def launched(pipe: DiffusionPipeline, options: AlignGuardOptions) -> AlignGuardOptions:
    """The options with what the launcher for this kind of model says where they say nothing."""
    rate = 1e-5 * options.batch * options.accumulation
    own = {"optimiser": "adamw", "learning_rate": rate, "warmup": 500}
    unet = getattr(pipe, "unet", None)
    if unet is None or unet.config.addition_embed_type == "text_time":
        own = {"optimiser": "adafactor", "learning_rate": 1e-5, "warmup": 0}
    missing = {name: value for name, value in own.items() if getattr(options, name) is None}
    return options.model_copy(update=missing)


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
    separate runs of the authors' script would; it does not depend on the other categories. Raises
    UserError: a denoiser of no known family, a harmful prompt without an anchor, or a training that
    diverged; all before anything is written.
    """
    from spqr_checks.alignment.training import low_rank
    from spqr_checks.alignment.training.pair_images import choose, joined, safety_pairs
    from spqr_checks.alignment.training.preference import Preference
    from spqr_checks.alignment.training.preservation import Kept
    from spqr_checks.alignment.training.unet import ADAPTER, single_precision
    from spqr_checks.alignment.training.views import view_of
    from spqr_checks.models import adapters, weights

    view, network = view_of(pipe, request.sampler, "alignguard"), weights.denoiser_of(pipe)
    options = launched(pipe, options)
    base_digest = weights.weights_digest(network)
    names = list(dict.fromkeys(request.categories))
    chosen = {name: choose(request, options.pairs, name) for name in names}
    pairs = {name: safety_pairs(view, request, chosen[name], options.pairing) for name in names}
    if options.merge == "joint":
        pairs = {"joint": joined(list(pairs.values()))}
    kept = Kept.asked(view, request, options)
    experts: list[Lora] = []
    accuracies: list[float] = []
    with single_precision(network):
        for number, its_pairs in enumerate(pairs.values()):
            objective = Preference(view, request, its_pairs, options)
            objective.train(kept, _of_all(report, number, len(pairs), options.steps))
            experts.append(low_rank.read(network, ADAPTER))
            accuracies.append(objective.accuracy)
            adapters.remove(pipe, ADAPTER)
    merged = _merged(view, request, options, experts)
    if options.merge != "joint":
        for name, expert, its in zip(names, experts, accuracies, strict=True):
            record: dict[str, Json] = {"category": name, "implicit_accuracy": its}
            folder = out / "experts" / folder_name(name)
            _save(view, expert, folder, record | {"base_digest": base_digest})
            adapters.remove(pipe, ADAPTER)
    record = {
        "merge": options.merge,
        "experts": list(pairs),
        "implicit_accuracy": accuracies,
        "merge_error": merged.error,
        "base_digest": base_digest,
    }
    _save(view, merged.lora, out, record)


def _merged(
    view: View,
    request: AlignmentRequest,
    options: AlignGuardOptions,
    experts: Sequence[Lora],
) -> Merged:
    from spqr_checks.alignment.training.activations import measure
    from spqr_checks.alignment.training.merging import Merged, merge

    if options.merge == "regmean":
        from spqr_checks.alignment.training.low_rank import truncated
        from spqr_checks.alignment.training.regmean import measured, regmean

        number, timesteps = options.calibration, options.calibration_timesteps
        layers = list(experts[0].factors)
        given = {"prompts_per_category": number, "timesteps": timesteps}
        grams, kept = measured(view, request, layers, **given)
        weights = {"keep_weight": options.regmean_keep, "ridge": options.ridge}
        lora = regmean(experts, grams, kept, scale=options.regmean_scale, **weights)
        return Merged(*truncated(lora, options.truncate)) if options.truncate else Merged(lora)
    signals = None
    if options.merge == "co-merge" and options.granularity != "entry":
        prompts, timesteps = options.calibration, options.calibration_timesteps
        signals = measure(view, request, experts, prompts_per_category=prompts, timesteps=timesteps)
    return merge(
        experts,
        "sum" if options.merge == "joint" else options.merge,  # the sum of one is that one
        signals=signals,
        statistic=options.statistic,
        granularity=options.granularity,
        density=options.density,
        rank=options.truncate,
    )


def _save(view: View, lora: Lora, folder: Path, record: dict[str, Json]) -> None:
    """Puts an adapter on the denoiser and writes it; it stays there."""
    from spqr_checks.alignment.training import low_rank
    from spqr_checks.alignment.training.unet import ADAPTER
    from spqr_checks.models import adapters, weights

    low_rank.put_on(weights.denoiser_of(view.pipe), lora, ADAPTER, view.targets)
    adapters.save_adapter(view.pipe, folder, ADAPTER, record)


def _of_all(report: Report, number: int, experts: int, steps: int) -> Report:
    """Reports an expert's progress as that of all of them."""

    def whole(progress: Progress) -> None:
        report(replace(progress, step=number * steps + progress.step, steps=experts * steps))

    return whole


METHOD = Method("alignguard", AlignGuardOptions, align_by_experts, transformers=True)
