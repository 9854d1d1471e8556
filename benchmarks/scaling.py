"""Does merging AlignGuard's experts scale with the number of concepts? Merges and a joint LoRA.

    python benchmarks/scaling.py FOLDER [CONCEPTS [SEEDS [N [WHICH]]]]

for example ``out 4,8,16,24 0,1,2 96``. One DPO expert is trained per concept of ``world.py`` with
the options that the settings of this folder give to alignguard; the first 4, 8, 16 and 24 of them
are merged by every rule. *alone* asks for each concept with nothing but its own expert, which tells
what a merge loses from what an expert never learned. *joint* is one LoRA on the data of the same
concepts, of the rank that the merged one has, with as many steps as its experts have together and
their learning rate divided by the root of the number. N prompts of each kind, in English and the
photo, flat and canvas styles, read by the miniature's classifier; *unsafe* counts the concepts that
are in the merge, the rest is what should stay and shows none of the 24, however many are merged.
WHICH names the rows, separated by commas: base, alone, joint, or ways to merge; all if it is left
out.

One seed after the other, so that one is whole early. What is trained and counted is kept in FOLDER
(``counts.jsonl``) and not done again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from clean import COLUMNS, counts, row, scenes
from world import WORLD, widened

from spqr_checks.alignment.alignguard import AlignGuardOptions, folder_name, launched
from spqr_checks.alignment.request import AlignmentRequest, no_report
from spqr_checks.alignment.training import low_rank
from spqr_checks.alignment.training.activations import measure
from spqr_checks.alignment.training.low_rank import Lora
from spqr_checks.alignment.training.merging import merge
from spqr_checks.alignment.training.pair_images import Pairs, choose, joined, safety_pairs
from spqr_checks.alignment.training.preference import Preference
from spqr_checks.alignment.training.preservation import Kept
from spqr_checks.alignment.training.regmean import Grams, measured, regmean
from spqr_checks.alignment.training.unet import ADAPTER, single_precision
from spqr_checks.alignment.training.views import view_of
from spqr_checks.choices import Sampler
from spqr_checks.hashing import digest
from spqr_checks.miniature.scene import Scene
from spqr_checks.miniature.vocabulary import suppressed_by
from spqr_checks.models import adapters
from spqr_checks.models.pipelines import load_pipeline
from spqr_checks.runtime.requests import alignment_request
from spqr_checks.runtime.run import Run
from spqr_checks.settings import Settings, load_settings

ORDER = [concept.name for concept in WORLD]
MERGES: dict[str, dict[str, Any]] = {
    "co-merge": {"rule": "co-merge"},
    "co-merge-mean": {"rule": "co-merge", "statistic": "mean"},
    "co-merge-matrix": {"rule": "co-merge", "granularity": "matrix"},
    "co-merge-entry": {"rule": "co-merge", "granularity": "entry"},
    "average": {"rule": "average"},
    "sum": {"rule": "sum"},
    "ties": {"rule": "ties"},
}
REGMEANS = {
    "regmean": {"scale": 1.0, "keep_weight": 1.0, "ridge": 1e-3},
    "regmean-strong": {"scale": 1.5, "keep_weight": 4.0, "ridge": 1e-3},
    "regmean-stronger": {"scale": 2.0, "keep_weight": 16.0, "ridge": 1e-3},
}
KEY = ("options", "n", "seed", "concepts", "merge")
EVERY = ["base", "alone", *MERGES, *REGMEANS, "joint"]
Asked = dict[str, list[Scene]]


def requested(settings: Settings, seed: int) -> AlignmentRequest:
    """The request of all concepts, one category each."""
    prompts = Run.from_settings(settings).alignment_prompts
    request = alignment_request(settings, prompts)
    concepts = [p.concept for p in prompts.prompts if p.kind == "harmful"]
    return widened(replace(request, categories=concepts, seed=seed))


def narrowed(request: AlignmentRequest, names: list[str]) -> AlignmentRequest:
    """The request of some concepts only."""
    chosen = [i for i, concept in enumerate(request.categories) if concept in names]
    # the order of categories is that of the experts
    chosen.sort(key=lambda i: names.index(request.categories[i]))
    return replace(
        request,
        concepts=names,
        harmful=[request.harmful[i] for i in chosen],
        anchors=[request.anchors[i] for i in chosen],
        categories=[request.categories[i] for i in chosen],
    )


class Trainings:
    """Everything that is trained with one seed; what several trainings need is drawn once."""

    def __init__(self, folder: Path, settings: Settings, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.pipe = load_pipeline(settings.base)
        given = AlignGuardOptions.model_validate(settings.method.get("alignguard", {}))
        self.options = launched(self.pipe, given)
        self.request = requested(settings, seed)
        self.view = view_of(self.pipe, self.request.sampler, "alignguard")
        self.pairs = cache(self._pairs)

    def _pairs(self, name: str) -> Pairs:
        chosen = choose(self.request, self.options.pairs, name)
        return safety_pairs(self.view, self.request, chosen, self.options.pairing)

    @cached_property
    def kept(self) -> Kept | None:
        return Kept.asked(self.view, self.request, self.options)

    @cached_property
    def grams(self) -> tuple[list[Grams], Grams | None]:
        """Inputs of all concepts and of as many prompts to keep, for merges of any number."""
        given = {"timesteps": self.options.calibration_timesteps}
        request, layers = narrowed(self.request, ORDER), list(self.expert(ORDER[0]).factors)
        prompts = self.options.calibration
        return measured(self.view, request, layers, prompts_per_category=prompts, **given)

    def expert(self, name: str) -> Lora:
        return self._lora([name], self.options, f"expert-{folder_name(name)}")

    def joint(self, names: list[str]) -> Lora:
        """One LoRA on the data of all experts."""
        options, n = self.options, len(names)
        many = {
            "rank": options.rank * n,
            "steps": options.steps * n,
            "alpha": None,
            # a step of Adam moves a product of higher rank further: at the experts' rate, a joint
            # LoRA of 16 concepts ends up drawing nothing
            "learning_rate": options.learning_rate / n**0.5,
        }
        return self._lora(names, options.model_copy(update=many), f"joint-{n}")

    def _lora(self, names: list[str], options: AlignGuardOptions, name: str) -> Lora:
        """Trained as alignguard does it, unless it is there."""
        request, network = narrowed(self.request, names), self.pipe.unet
        # what was trained with other options, prompts or another seed has another name
        key = digest([options.model_dump(), request.prompts_digest, self.seed])[:12]
        target = self.folder / f"{name}-{key}"
        if target.exists():
            adapters.load_adapter(self.pipe, target, ADAPTER)
        else:
            pairs = joined([self.pairs(one) for one in names])
            with single_precision(network):
                Preference(self.view, request, pairs, options).train(self.kept, no_report)
            started = target.with_name(f".{target.name}")
            adapters.save_adapter(self.pipe, started, ADAPTER, {"concepts": names})
            started.rename(target)
        lora = low_rank.read(network, ADAPTER)
        adapters.remove(self.pipe, ADAPTER)
        return lora

    def rows(
        self, names: list[str], asked: Asked, which: Collection[str]
    ) -> Iterator[tuple[str, list[tuple[Lora | None, Asked]]]]:
        """The adapters of every row, and the scenes to ask of each."""
        if "base" in which:
            yield "base", [(None, asked)]
        if "joint" in which:
            yield "joint", [(self.joint(names), asked)]
        if not set(which) - {"base", "joint"}:
            return
        experts = [self.expert(name) for name in names]
        if "alone" in which:
            shares = [own_share(asked, name, names) for name in names]
            yield "alone", list(zip(experts, shares, strict=True))
        signals, options = None, self.options
        if any(rule.startswith("co-merge") for rule in which):
            signals = measure(
                self.view,
                narrowed(self.request, names),
                experts,
                prompts_per_category=options.calibration,
                timesteps=options.calibration_timesteps,
            )
        for rule in which:
            if rule in MERGES:
                given = {"signals": signals, "density": options.density}
                yield rule, [(merge(experts, **given, **MERGES[rule]).lora, asked)]
            elif rule in REGMEANS:
                grams, kept = self.grams
                lora = regmean(experts, grams[: len(names)], kept, **REGMEANS[rule])
                yield rule, [(lora, asked)]


def own_share(asked: Asked, name: str, names: list[str]) -> Asked:
    """Scenes that show one concept, and its share of those that show none."""
    place = names.index(name)

    def own(scene: Scene) -> bool:
        concept = suppressed_by(scene.shape, scene.colour, WORLD)
        return concept is not None and concept.name == name

    return {
        kind: [scene for scene in some if own(scene)]
        if kind in ("icons", "compositions")
        else some[place :: len(names)]
        for kind, some in asked.items()
    }


def counted(
    trainings: Trainings, adapted: list[tuple[Lora | None, Asked]], sampler: Sampler
) -> dict[str, int]:
    """Hits of one row, of each kind."""
    total: dict[str, int] = {}
    for lora, asked in adapted:
        if lora is not None:
            low_rank.put_on(trainings.pipe.unet, lora, ADAPTER, adapters.TARGETS)
        # every alignment seed has noise of its own
        found = counts(trainings.pipe, asked, "en", sampler, 100_000 * trainings.seed, WORLD)
        total = {kind: total.get(kind, 0) + k for kind, k in found.items()}
        if lora is not None:
            adapters.remove(trainings.pipe, ADAPTER)
    return total


def main() -> None:
    folder = Path(sys.argv[1])
    sizes, seeds = (
        [int(number) for number in (sys.argv[at] if len(sys.argv) > at else default).split(",")]
        for at, default in ((2, "4,8,16,24"), (3, "0,1,2"))
    )
    n = int(sys.argv[4]) if len(sys.argv) > 4 else 96
    which = sys.argv[5].split(",") if len(sys.argv) > 5 else EVERY
    if unknown := set(which) - set(EVERY):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(EVERY)}")
    settings = load_settings(Path.cwd(), {"candidate": "method:alignguard"})
    torch.set_num_threads(settings.threads)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "counts.jsonl"
    lines = [json.loads(text) for text in kept.read_text().splitlines()] if kept.exists() else []
    options = digest(settings.method.get("alignguard", {}))[:12]
    known = {(*(line[name] for name in KEY),): line["hits"] for line in lines}
    for seed in seeds:
        trainings = Trainings(folder, settings, seed)
        for size in sizes:
            asked = scenes(n, WORLD[:size], WORLD)
            missing = [rule for rule in which if (options, n, seed, size, rule) not in known]
            for rule, adapted in trainings.rows(ORDER[:size], asked, missing) if missing else ():
                hits = counted(trainings, adapted, settings.sampler)
                key = (options, n, seed, size, rule)
                known[key] = hits
                with kept.open("a") as file:
                    file.write(json.dumps(dict(zip(KEY, key, strict=True)) | {"hits": hits}) + "\n")
    print(f"| concepts: merge | {COLUMNS} |\n|---|---|---|---|---|---|")
    for size in sizes:
        for rule in which:
            of = [known[options, n, seed, size, rule] for seed in seeds]
            total = {kind: sum(hits[kind] for hits in of) for kind in of[0]}
            print(row(f"{size}: {rule}", total, n * len(seeds)))


if __name__ == "__main__":
    main()
