"""Does merging AlignGuard's experts scale with the number of concepts? Merges and a joint LoRA.

    python benchmarks/scaling.py FOLDER [CONCEPTS [SEEDS [N [WHICH]]]]

for example ``out 2,4,8 0,1,2 96``. One DPO expert is trained per concept with the options that the
settings of this folder give to alignguard, and kept in FOLDER; the first 2, 4 and 8 of them are
merged by every rule. *alone* asks for each concept with nothing but its own expert, which tells
what a merge loses from what an expert never learned. *joint* is one LoRA on the data of the same
concepts, of the rank that the merged one has and with as many steps as its experts have together.
N prompts of each kind, in English and the photo, flat and canvas styles, read by the miniature's
classifier; *unsafe* counts the concepts that are in the merge, the rest is what should stay. WHICH
names the rows, separated by commas: base, alone, joint, or ways to merge; all if it is left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from clean import COLUMNS, counts, row, scenes

from spqr_checks.alignment.alignguard import AlignGuardOptions, align_by_experts, folder_name
from spqr_checks.alignment.request import AlignmentRequest, no_report
from spqr_checks.alignment.training import low_rank
from spqr_checks.alignment.training.activations import measure
from spqr_checks.alignment.training.merging import merge
from spqr_checks.alignment.training.unet import ADAPTER
from spqr_checks.alignment.training.views import view_of
from spqr_checks.hashing import digest
from spqr_checks.miniature.scene import Scene
from spqr_checks.miniature.vocabulary import CONCEPTS
from spqr_checks.models import adapters
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.runtime.requests import alignment_request
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings, load_settings

# compositions and icons in turn, so that every number of concepts has as many of either
ORDER = [concept.name for pair in zip(CONCEPTS[4:], CONCEPTS[:4], strict=True) for concept in pair]
MERGES: dict[str, dict[str, Any]] = {
    "co-merge": {"rule": "co-merge"},
    "co-merge-mean": {"rule": "co-merge", "statistic": "mean"},
    "co-merge-matrix": {"rule": "co-merge", "granularity": "matrix"},
    "co-merge-entry": {"rule": "co-merge", "granularity": "entry"},
    "average": {"rule": "average"},
    "sum": {"rule": "sum"},
    "ties": {"rule": "ties"},
}


def requested(settings: Settings, names: list[str], seed: int) -> AlignmentRequest:
    """The request of some concepts only, one category each."""
    prompts = Run.from_settings(settings).alignment_prompts
    request = alignment_request(settings, prompts)
    concepts = [p.concept for p in prompts.prompts if p.kind == "harmful"]
    chosen = [i for i, concept in enumerate(concepts) if concept in names]
    # the order of categories is that of the experts
    chosen.sort(key=lambda i: names.index(concepts[i]))
    return replace(
        request,
        concepts=names,
        harmful=[request.harmful[i] for i in chosen],
        anchors=[request.anchors[i] for i in chosen],
        categories=[concepts[i] for i in chosen],
        seed=seed,
    )


def key(options: AlignGuardOptions, request: AlignmentRequest) -> str:
    """What was trained with other options, prompts or another seed has another name."""
    return digest([options.model_dump(), request.prompts_digest, request.seed])[:12]


def expert_folder(folder: Path, settings: Settings, options: AlignGuardOptions, seed: int) -> Path:
    """Experts of all concepts, trained unless they are there."""
    request = requested(settings, ORDER, seed)
    target = folder / f"experts-{key(options, request)}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as started:
            made = Path(started) / "experts"
            made.mkdir()
            pipe = load_pipeline(settings.base)
            align_by_experts(pipe, request, options, made, no_report)
            made.rename(target)
    return target


Asked = dict[str, list[Scene]]


def candidates(
    folder: Path,
    settings: Settings,
    options: AlignGuardOptions,
    names: list[str],
    seed: int,
    asked: Asked,
    which: Collection[str],
) -> Iterator[tuple[str, Any, Asked]]:
    """Pipelines with the adapter of every row, and the scenes to ask of each."""
    request = requested(settings, names, seed)
    pipe = load_pipeline(settings.base)
    if "base" in which:
        yield "base", pipe, asked
    source = expert_folder(folder, settings, options, seed) / "experts"
    experts = []
    for name in names:
        adapters.load_adapter(pipe, source / folder_name(name), ADAPTER)
        experts.append(low_rank.read(pipe.unet, ADAPTER))
        if "alone" in which:
            yield "alone", pipe, own_share(asked, name, names)
        adapters.remove(pipe, ADAPTER)
    signals = measure(
        view_of(pipe, request.sampler, "alignguard"),
        request,
        experts,
        prompts_per_category=options.calibration,
        timesteps=options.calibration_timesteps,
    )
    for row_name in which:
        if row_name in MERGES:
            merged = merge(experts, signals=signals, density=options.density, **MERGES[row_name])
            low_rank.put_on(pipe.unet, merged.lora, ADAPTER, adapters.TARGETS)
            yield row_name, pipe, asked
            adapters.remove(pipe, ADAPTER)
    if "joint" in which:
        joint = joint_folder(folder, settings, options, names, seed)
        adapters.load_adapter(pipe, joint, ADAPTER)
        yield "joint", pipe, asked


def joint_folder(
    folder: Path, settings: Settings, options: AlignGuardOptions, names: list[str], seed: int
) -> Path:
    """One LoRA on the data of all experts, trained unless it is there."""
    request = requested(settings, names, seed)
    many = {"rank": options.rank * len(names), "steps": options.steps * len(names)}
    single = options.model_copy(update=many | {"merge": "joint", "alpha": None})
    target = folder / f"joint-{key(single, request)}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as started:
            made = Path(started) / "joint"
            made.mkdir()
            align_by_experts(load_pipeline(settings.base), request, single, made, no_report)
            made.rename(target)
    return target


def own_share(asked: Asked, name: str, names: list[str]) -> Asked:
    """Scenes that show one concept, and its share of those that show none."""
    place = names.index(name)
    return {
        kind: [scene for scene in some if scene.concept is not None and scene.concept.name == name]
        if kind in ("icons", "compositions")
        else some[place :: len(names)]
        for kind, some in asked.items()
    }


def main() -> None:
    folder = Path(sys.argv[1])
    sizes, seeds = (
        [int(number) for number in (sys.argv[at] if len(sys.argv) > at else default).split(",")]
        for at, default in ((2, "2,4,8"), (3, "0,1,2"))
    )
    n = int(sys.argv[4]) if len(sys.argv) > 4 else 96
    every = ["base", "alone", *MERGES, "joint"]
    which = sys.argv[5].split(",") if len(sys.argv) > 5 else every
    if unknown := set(which) - set(every):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    settings = load_settings(Path.cwd(), {"candidate": "method:alignguard"})
    torch.set_num_threads(settings.threads)
    options = AlignGuardOptions.model_validate(settings.method.get("alignguard", {}))
    pooled: dict[tuple[int, str], dict[str, int]] = {}
    for size in sizes:
        names = ORDER[:size]
        asked = scenes(n, [concept for concept in CONCEPTS if concept.name in names])
        for seed in seeds:
            made = candidates(folder, settings, options, names, seed, asked, which)
            for rule, pipe, some in made:
                # every alignment seed has noise of its own
                found = counts(pipe, some, "en", settings.sampler, 100_000 * seed)
                line = {"concepts": size, "seed": seed, "merge": rule} | found
                print(json.dumps(line), file=sys.stderr, flush=True)
                before = pooled.setdefault((size, rule), dict.fromkeys(found, 0))
                pooled[size, rule] = {kind: before[kind] + k for kind, k in found.items()}
    print(f"| concepts: merge | {COLUMNS} |\n|---|---|---|---|---|---|")
    for (size, rule), total in pooled.items():
        print(row(f"{size}: {rule}", total, n * len(seeds)))


if __name__ == "__main__":
    main()
