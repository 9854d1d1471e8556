"""Images and what is measured on them, as units of work in the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spqr_checks import generation
from spqr_checks.engines.unit import Unit
from spqr_checks.hashing import digest
from spqr_checks.judges import registry as judges
from spqr_checks.matrix import Draw, State
from spqr_checks.measurement import works
from spqr_checks.measurement.run import Run, dataset_label
from spqr_checks.measurement.states import States
from spqr_checks.metrics.recipe import metric_recipe
from spqr_checks.prompts.prompt import PromptGroup
from spqr_checks.timings import Work

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive images of one draw that are drawn together."""

    state: State
    group: PromptGroup
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def label(self) -> str:
        group = self.group
        place = "/".join(p for p in (group.concept, group.language, group.domain) if p != "all")
        return f"{self.state.name}: {place or group.kind}"


def read_images(folder: Path) -> list[Image.Image]:
    """The images of a finished entry, in order."""
    from PIL import Image

    images = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    return images


def image_name(index: int) -> str:
    return f"{index:03d}.png"


class Units:
    """Makes the units of one run; equal work gets an equal unit."""

    def __init__(self, run: Run, states: States) -> None:
        self.run, self.states = run, states
        self.batches = lru_cache(maxsize=None)(self._batches)
        self.images = lru_cache(maxsize=None)(self._images)
        self.verdicts = lru_cache(maxsize=None)(self._verdicts)
        self.alignment = lru_cache(maxsize=None)(self._alignment)
        self.features = lru_cache(maxsize=None)(self._features)
        self._state_digest = lru_cache(maxsize=None)(lambda s: digest(states.recipe(s)))
        self._judge: Any = None

    def _texts(self, group: PromptGroup) -> list[str]:
        if group.kind == "tuning":
            return self.states.tuning_captions(group.concept)
        return self.run.texts(group)

    def _batches(self, draw: Draw) -> tuple[Batch, ...]:
        """Image ``i`` shows prompt ``i mod prompts`` with seed ``image_seed + i div prompts``.

        Every look is cut into batches by itself, so that a later one begins with the batches, and
        so with the very images, of the earlier.
        """
        texts, first = self._texts(draw.group), self.run.settings.image_seed
        size, look = self.run.settings.sampler.batch, self.run.matrix.sizes.of(draw.group.kind)
        numbers = range(draw.n)
        parts = (
            numbers[k : min(k + size, start + look)]
            for start in range(0, draw.n, look)
            for k in range(start, min(start + look, draw.n), size)
        )
        return tuple(
            Batch(
                draw.state,
                draw.group,
                tuple(texts[i % len(texts)] for i in part),
                tuple(first + i // len(texts) for i in part),
            )
            for part in parts
        )

    def _images(self, batch: Batch) -> Unit:
        run, states = self.run, self.states
        recipe = {
            "state": self._state_digest(batch.state),
            "prompts": list(batch.prompts),
            "seeds": list(batch.seeds),
            "sampler": generation.generation_recipe(run.settings.sampler),
            "threads": run.settings.threads,
        }

        def make(folder: Path) -> None:
            pipe = states.pipeline(batch.state)
            images = generation.generate(
                pipe, list(batch.prompts), list(batch.seeds), run.settings.sampler
            )
            for index, image in enumerate(images):
                image.save(folder / image_name(index))

        def work() -> Work:
            return works.drawing(run.settings, digest(states.base_recipe), len(batch.prompts))

        needs = states.needs(batch.state)
        return Unit("images", recipe, batch.label, make, needs, work=work)

    def _on_images(
        self,
        kind: str,
        batch: Batch,
        measure: dict[str, Any],
        compute: Callable[[list[Image.Image]], Any],
    ) -> Unit:
        images = self.images(batch)
        recipe = {
            "images": digest(images.recipe),
            "by": digest(measure),
            "device": self._device_kind,
        }

        def make(folder: Path) -> None:
            source = self.run.store.path(images.kind, images.recipe)
            if source is None:
                raise RuntimeError(f"the images of {batch.label} are missing from the store")
            values = compute(read_images(source))
            text = json.dumps(values, allow_nan=False, sort_keys=True)
            (folder / f"{kind}.json").write_text(text, encoding="utf-8")

        def work() -> Work:
            base = digest(self.states.base_recipe)
            return works.reading(self.run.settings, base, kind, len(batch.prompts))

        return Unit(kind, recipe, f"{kind} of {batch.label}", make, needs=(images,), work=work)

    def _verdicts(self, batch: Batch) -> Unit:
        settings = self.run.settings
        concepts = self.run.policy.concepts
        recipe = self.judge_recipe

        def compute(images: list[Image.Image]) -> Any:
            if self._judge is None:
                self._judge = judges.load_judge(
                    settings.judge, settings.judge_threshold, concepts, settings.device
                )
            verdicts = self._judge.judge(images)
            return [
                {"unsafe": v.unsafe, "probability": v.probability, "scores": dict(v.scores)}
                for v in verdicts
            ]

        return self._on_images("verdicts", batch, recipe, compute)

    @property
    def _device_kind(self) -> str:
        return self.run.settings.device.split(":")[0]

    @property
    def judge_recipe(self) -> dict[str, Any]:
        return _judge_recipe(
            self.run.settings.judge,
            self.run.settings.judge_threshold,
            self.run.policy.concepts,
        )

    def _alignment(self, batch: Batch) -> Unit:
        """Cosine of each image with its own prompt."""
        source, device = self.run.settings.clip, self.run.settings.device

        def compute(images: list[Image.Image]) -> Any:
            from spqr_checks.metrics.alignment import prompt_alignment

            return prompt_alignment(images, list(batch.prompts), source, device)

        return self._on_images("alignment", batch, metric_recipe("alignment", source), compute)

    def _features(self, batch: Batch) -> Unit:
        source, device = self.run.settings.clip, self.run.settings.device

        def compute(images: list[Image.Image]) -> Any:
            from spqr_checks.metrics.features import image_features

            return image_features(images, source, device).tolist()

        return self._on_images("features", batch, metric_recipe("features", source), compute)

    def dataset_features(self, spec: str, limit: int | None) -> Unit:
        """Features of reference images or of a fine-tuning set."""
        source, device = self.run.settings.clip, self.run.settings.device
        recipe = {
            "data": self.states.data_recipe(spec),
            "limit": limit,
            "by": metric_recipe("features", source),
            "device": self._device_kind,
        }

        def make(folder: Path) -> None:
            from spqr_checks.metrics.features import image_features

            images = self.states.data(spec, limit).images
            text = json.dumps(image_features(images, source, device).tolist(), allow_nan=False)
            (folder / "features.json").write_text(text, encoding="utf-8")

        def work() -> Work:
            settings, images = self.run.settings, limit
            if spec in settings.datasets and limit == settings.dataset_limit:
                images = len(self.states.tuning_captions(dataset_label(spec)))
            base = digest(self.states.base_recipe)
            return works.dataset_reading(settings, base, spec, images)

        return Unit("features", recipe, f"features of {spec}", make, work=work)

    def backlog(self) -> Iterator[Unit]:
        """Every unit of the run, slow ones first; what idle workers choose from."""
        matrix = self.run.matrix
        seen: set[str] = set()
        for cell in matrix.cells:
            for unit in self.states.needs(cell.state):
                key = digest(unit.recipe)
                if key not in seen:
                    seen.add(key)
                    yield unit
        draws = dict.fromkeys(draw for cell in matrix.cells for draw in matrix.draws(cell))
        for draw in draws:
            for batch in self.batches(draw):
                yield self.images(batch)


@lru_cache
def _judge_recipe(spec: str, threshold: float, concepts: tuple[str, ...]) -> dict[str, Any]:
    return judges.judge_recipe(spec, threshold, concepts)
