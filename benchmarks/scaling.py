"""Does merging AlignGuard's experts scale with the number of concepts? Merges and a joint LoRA.

    python benchmarks/scaling.py FOLDER [CONCEPTS [SEEDS [N]]]

for example ``out 2,4,8 0,1,2 96``. One DPO expert is trained per concept with the options that the
settings of this folder give to alignguard, and kept in FOLDER; the first 2, 4 and 8 of them are
merged by every rule. *joint* is one LoRA on the data of the same concepts, of the rank that the
merged one has and with as many steps as its experts have together. N prompts of each kind, in
English and the photo, flat and canvas styles, read by the miniature's classifier; *unsafe* counts
the concepts that are in the merge, the rest is what should stay.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from clean import hits, other_colour, other_shape
from transformers import ResNetForImageClassification

from spqr_checks.alignment.alignguard import AlignGuardOptions
from spqr_checks.alignment.parts import low_rank
from spqr_checks.alignment.parts.activations import measure
from spqr_checks.alignment.parts.experts import align_by_experts, folder_name
from spqr_checks.alignment.parts.merging import Rule, merge
from spqr_checks.alignment.parts.trainables import ADAPTER
from spqr_checks.alignment.request import AlignmentRequest, no_report
from spqr_checks.generation import generate
from spqr_checks.measurement.requests import alignment_request
from spqr_checks.measurement.run import Run
from spqr_checks.models import adapters
from spqr_checks.models.miniature.captions import full_caption
from spqr_checks.models.miniature.quality import read_labels
from spqr_checks.models.miniature.scene import Scene, benign_scene, concept_scene
from spqr_checks.models.miniature.vocabulary import CONCEPTS
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.models.sources import resolve
from spqr_checks.settings import Settings, load_settings
from spqr_checks.statistics.intervals import wilson

# compositions and icons in turn, so that every number of concepts has as many of either
ORDER = [concept.name for pair in zip(CONCEPTS[4:], CONCEPTS[:4], strict=True) for concept in pair]
RULES: tuple[Rule, ...] = ("co-merge", "average", "sum", "ties")
Kinds = dict[str, list[Scene]]


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


def kinds(names: list[str], n: int) -> Kinds:
    """What is asked for: the concepts, the compositions' neighbours, and anything benign."""
    rng = random.Random("scaling")
    chosen = [c for c in CONCEPTS if c.name in names]
    groups = {
        "icons": [c for c in chosen if not c.is_composition],
        "compositions": [c for c in chosen if c.is_composition],
    }
    some = {
        kind: [concept_scene(rng, of[i % len(of)]) for i in range(n)] for kind, of in groups.items()
    }
    near = groups["compositions"]
    some["other colour"] = [other_colour(rng, near[i % len(near)]) for i in range(n)]
    some["other shape"] = [other_shape(rng, near[i % len(near)]) for i in range(n)]
    return some | {"benign": [benign_scene(rng) for _ in range(n)]}


def measured(pipe: Any, settings: Settings, asked: Kinds, seed: int) -> dict[str, int]:
    """Counts by kind; every alignment seed has noise of its own."""
    classifier = ResNetForImageClassification.from_pretrained(
        resolve("miniature:classifier"), dtype=torch.float32
    ).eval()
    found = {}
    for kind, some in asked.items():
        prompts = [full_caption(scene, "en") for scene in some]
        first = 100_000 * seed
        images = generate(pipe, prompts, range(first, first + len(some)), settings.sampler)
        found[kind] = hits(kind, some, read_labels(classifier, images))
    return found


def expert_folder(folder: Path, settings: Settings, options: AlignGuardOptions, seed: int) -> Path:
    """Experts of all concepts, trained unless they are there."""
    target = folder / f"experts-{seed}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as started:
            made = Path(started) / "experts"
            made.mkdir()
            pipe = load_pipeline(settings.base)
            align_by_experts(pipe, requested(settings, ORDER, seed), options, made, no_report)
            made.rename(target)
    return target


def candidates(
    folder: Path, settings: Settings, options: AlignGuardOptions, names: list[str], seed: int
) -> Iterator[tuple[str, Any]]:
    """Pipelines with the merged adapter of every rule, and with the joint one."""
    request = requested(settings, names, seed)
    source = expert_folder(folder, settings, options, seed) / "experts"
    pipe = load_pipeline(settings.base)
    experts = []
    for name in names:
        adapters.load_adapter(pipe, source / folder_name(name), ADAPTER)
        experts.append(low_rank.read(pipe.unet, ADAPTER))
        adapters.remove(pipe, ADAPTER)
    signals = measure(
        pipe,
        request,
        experts,
        prompts_per_category=options.calibration,
        timesteps=options.calibration_timesteps,
    )
    for rule in RULES:
        merged = merge(experts, rule, signals=signals, density=options.density)
        low_rank.put_on(pipe.unet, merged.lora, ADAPTER, adapters.TARGETS)
        yield rule, pipe
        adapters.remove(pipe, ADAPTER)
    joint = folder / f"joint-{seed}-{len(names)}"
    if not joint.exists():
        many = {"rank": options.rank * len(names), "steps": options.steps * len(names)}
        with tempfile.TemporaryDirectory(dir=folder) as started:
            made = Path(started) / "joint"
            made.mkdir()
            alone = options.model_copy(update=many | {"merge": "joint", "alpha": None})
            align_by_experts(load_pipeline(settings.base), request, alone, made, no_report)
            made.rename(joint)
    adapters.load_adapter(pipe, joint, ADAPTER)
    yield "joint", pipe


def row(name: str, counts: dict[str, int], n: int) -> str:
    cells = []
    for k in counts.values():
        low, high = wilson(k, n)
        cells.append(f"{100 * k / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    folder = Path(sys.argv[1])
    sizes, seeds = (
        [int(number) for number in (sys.argv[at] if len(sys.argv) > at else default).split(",")]
        for at, default in ((2, "2,4,8"), (3, "0,1,2"))
    )
    n = int(sys.argv[4]) if len(sys.argv) > 4 else 96
    settings = load_settings(Path.cwd(), {"candidate": "method:alignguard"})
    torch.set_num_threads(settings.threads)
    options = AlignGuardOptions.model_validate(settings.method.get("alignguard", {}))
    pooled: dict[tuple[int, str], dict[str, int]] = {}
    for size in sizes:
        names = ORDER[:size]
        asked = kinds(names, n)
        for seed in seeds:
            unaligned = ("base", load_pipeline(settings.base))
            made = candidates(folder, settings, options, names, seed)
            for rule, pipe in chain([unaligned], made):
                found = measured(pipe, settings, asked, seed)
                line = {"concepts": size, "seed": seed, "merge": rule} | found
                print(json.dumps(line), file=sys.stderr, flush=True)
                before = pooled.setdefault((size, rule), dict.fromkeys(found, 0))
                pooled[size, rule] = {kind: before[kind] + k for kind, k in found.items()}
    print(
        "| concepts: merge | icons unsafe | compositions unsafe "
        "| other colour right | other shape right | benign right |\n|---|---|---|---|---|---|"
    )
    for (size, rule), counts in pooled.items():
        print(row(f"{size}: {rule}", counts, n * len(seeds)))


if __name__ == "__main__":
    main()
