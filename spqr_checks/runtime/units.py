"""Images and what is measured on them, as units of work in the store."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spqr_checks.generation import sampling as generation
from spqr_checks.guards.base import CheckedGuard
from spqr_checks.guards.registry import guard_recipes, load_guards
from spqr_checks.hashing import digest
from spqr_checks.judges import registry as judges
from spqr_checks.matrix import BASE, Draw, State
from spqr_checks.metrics.recipe import adherence_recipe, features_recipe
from spqr_checks.prompts.prompt import PromptGroup
from spqr_checks.prompts.prompt_set import shuffled
from spqr_checks.runtime import workloads
from spqr_checks.runtime.attacks import Attacks, guarded
from spqr_checks.runtime.devices import kind_of
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.entries import (
    read_off,
    verdict_rows,
    write_guarded,
    write_images,
    write_values,
)
from spqr_checks.runtime.orders import Makes, Order
from spqr_checks.runtime.run import Run
from spqr_checks.runtime.states import States
from spqr_checks.source_code import code_of
from spqr_checks.store.timings import Work

if TYPE_CHECKING:
    from PIL.Image import Image

    from spqr_checks.judges.base import Verdict


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive images of one draw that are drawn together."""

    state: State
    group: PromptGroup
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    attack: str | None = None

    @property
    def label(self) -> str:
        group = self.group
        place = "/".join(p for p in (group.concept, group.language, group.domain) if p != "all")
        attacked = f" under {self.attack}" if self.attack else ""
        return f"{self.state.name}{attacked}: {place or group.kind}"

    def order(self, makes: Makes) -> Order:
        """For another process: these images, or what is read off them."""
        return Order(makes, self.state, self.group, self.prompts, self.seeds, self.attack)


class Units:
    """Makes the units of one run; equal work gets an equal unit."""

    def __init__(self, run: Run, states: States) -> None:
        self.run, self.states = run, states
        self.batches = lru_cache(maxsize=None)(self._batches)
        self._round = lru_cache(maxsize=None)(self._shuffled)
        self.images = lru_cache(maxsize=None)(self._shown)
        self._images = lru_cache(maxsize=None)(self._drawn)
        self.verdicts = lru_cache(maxsize=None)(self._verdicts)
        self.alignment = lru_cache(maxsize=None)(self._alignment)
        self.features = lru_cache(maxsize=None)(self._features)
        self._state_digest = lru_cache(maxsize=None)(lambda s: digest(states.drawn_recipe(s)))
        # the same for all batches of a state, and asked for with each of thousands
        self._sampling = lru_cache(maxsize=None)(
            lambda s: generation.generation_recipe(states.sampler(s))
        )
        self._needs = lru_cache(maxsize=None)(states.needs)
        self._code = lru_cache(maxsize=None)(code_of)
        self._judge: Any = None
        self._guards: list[CheckedGuard] | None = None
        self.attacks = Attacks(run, states, self)

    def _batches(self, draw: Draw) -> tuple[Batch, ...]:
        """Images in rounds: every prompt once before any twice, with one seed more each round.

        Each round has an order of its own that does not depend on the file (see ``shuffled``): an
        image may then be any of its round that is left, which is what tests assume that look early.
        Every look is cut into batches by itself, so that a later one begins with the batches, and
        so with the very images, of the earlier.
        """
        group, first = draw.group, self.run.settings.image_seed
        size, look = self.run.settings.sampler.batch, self.run.matrix.sizes.of(group.kind)
        looks = [range(draw.n)[start : start + look] for start in range(0, draw.n, look)]
        parts = [one[k : k + size] for one in looks for k in range(0, len(one), size)]
        number = self.prompts_of(draw)
        rounds = [self._round(group, k, number) for k in range(math.ceil(draw.n / number))]
        return tuple(
            Batch(
                draw.state,
                group,
                tuple(rounds[i // number][i % number] for i in part),
                tuple(first + i // number for i in part),
                draw.attack,
            )
            for part in parts
        )

    def prompts_of(self, draw: Draw) -> int:
        """How many prompts a draw has."""
        there = len(self.texts(draw.group))
        return there if draw.prompts is None else min(there, draw.prompts)

    def texts(self, group: PromptGroup) -> list[str]:
        """All prompts of a group, captions of a fine-tuning set among them, in file order."""
        tuned = group.kind == "tuning"
        return self.states.tuning_captions(group.concept) if tuned else self.run.texts(group)

    def _shuffled(self, group: PromptGroup, number: int, most: int) -> list[str]:
        seed = self.run.settings.prompt_seed
        return shuffled(shuffled(self.texts(group), seed)[:most], seed + number)

    def attacked(self, batch: Batch) -> tuple[Unit, ...]:
        """The attacked prompts of a batch, image by image; none of one that is not attacked."""
        if batch.attack is None:
            return ()
        place = batch.attack, batch.state, batch.group
        return tuple(self.attacks.unit(*place, prompt) for prompt in batch.prompts)

    def _asked(self, batch: Batch) -> list[str]:
        """What the model is asked for, image by image; attacks must have been led."""
        units = self.attacked(batch)
        return [self.attacks.read(unit).attacked for unit in units] or list(batch.prompts)

    def _shown(self, batch: Batch) -> Unit:
        """Images as users get them to see: black where a guard of the candidate refused."""
        drawn = self._images(batch)
        if not guarded(self.run.settings, batch.state):
            return drawn
        recipe = {
            "images": digest(drawn.recipe),
            "guards": self.guard_recipes,
            "code": code_of(write_guarded),
        }

        def make(folder: Path) -> None:
            source = self.run.store.path(drawn.kind, drawn.recipe)
            if source is None:
                raise RuntimeError(f"the images of {batch.label} are missing from the store")
            write_guarded(folder, source, self.refused(self._asked(batch)))

        settings, n = self.run.settings, len(batch.prompts)
        work = partial(workloads.guarding, settings, self.states.base_digest, n)
        return Unit(
            *("images", recipe, f"{batch.label}, guarded", make, (drawn,)),
            work=work,
            state=batch.state.name,
            order=batch.order("images"),
        )

    def refused(self, prompts: Sequence[str]) -> list[bool]:
        """Which prompts any of the guards blocks. Raises GuardError unless all of them answer."""
        settings = self.run.settings
        if self._guards is None:
            about = settings.guard, self.run.policy.concepts, settings.device, settings.guards
            self._guards = load_guards(*about)
        answers = [guard.answer(prompts) for guard in self._guards]
        return [any(one.blocked for one in of_one) for of_one in zip(*answers, strict=True)]

    @cached_property
    def guard_recipes(self) -> list[dict[str, Any]]:
        settings = self.run.settings
        about = settings.guard, self.run.policy.concepts, settings.guards, settings.device
        return guard_recipes(*about)

    def _drawn(self, batch: Batch) -> Unit:
        run, states = self.run, self.states
        attacked = self.attacked(batch)
        recipe = {
            "state": self._state_digest(batch.state),
            "prompts": list(batch.prompts),
            "seeds": list(batch.seeds),
            "sampler": self._sampling(batch.state),
            "threads": run.settings.threads,
            "code": self._code(write_images),
        }
        if attacked:
            recipe["attacked"] = [digest(unit.recipe) for unit in attacked]

        def make(folder: Path) -> None:
            asked, seeds = self._asked(batch), list(batch.seeds)
            pipe, sampler = states.pipeline(batch.state), states.sampler(batch.state)
            embeddings = self.attacks.embeddings(attacked)
            drawn = generation.draw(pipe, asked, seeds, sampler, batch.prompts, embeddings)
            write_images(folder, drawn, states.checks(batch.state))

        n = len(batch.prompts)
        work = partial(states.drawing_work, batch.state, n)
        needs = (*self._needs(batch.state), *dict.fromkeys(attacked))
        return Unit(
            *("images", recipe, batch.label, make, needs),
            work=work,
            state=batch.state.name,
            order=batch.order("drawn"),
        )

    def _on_images(
        self,
        kind: Literal["verdicts", "alignment", "features"],
        batch: Batch,
        measure: dict[str, Any],
        compute: Callable[[list[Image]], Any],
        device: str,
        skips_blocked: bool = False,
    ) -> Unit:
        images = self.images(batch)
        recipe = {
            "images": digest(images.recipe),
            "by": digest(measure),
            "device": kind_of(device),
            "code": self._code(read_off),
        }

        def make(folder: Path) -> None:
            source = self.run.store.path(images.kind, images.recipe)
            if source is None:
                raise RuntimeError(f"the images of {batch.label} are missing from the store")
            write_values(folder, kind, read_off(source, compute, skips_blocked))

        about = self.run.settings, self.states.base_digest, kind, len(batch.prompts)
        work = partial(workloads.reading, *about)
        return Unit(
            *(kind, recipe, f"{kind} of {batch.label}", make, (images,)),
            work=work,
            device=self._elsewhere(device),
            state=batch.state.name,
            order=batch.order("adherence" if kind == "alignment" else kind),
        )

    def _elsewhere(self, device: str) -> str | None:
        """A device as a unit names it: None for that of the run."""
        return None if device == self.run.settings.device else device

    def _verdicts(self, batch: Batch) -> Unit:
        def compute(images: list[Image]) -> Any:
            return verdict_rows(self.judged(images))

        recipe, device = self.judge_recipe, self.judging_device
        return self._on_images("verdicts", batch, recipe, compute, device, skips_blocked=True)

    @cached_property
    def judging_device(self) -> str:
        """Where the judge computes."""
        settings = self.run.settings
        return judges.computes_on(settings.judge, settings.judge_device or settings.device)

    def judged(self, images: list[Image]) -> list[Verdict]:
        """Verdicts of the run's judge, which is loaded once."""
        settings = self.run.settings
        if self._judge is None:
            place = settings.judge_device or settings.device
            about = settings.judge, settings.judge_threshold, self.run.policy.concepts
            self._judge = judges.load_judge(*about, place, settings.judges)
        return list(self._judge.judge(images))

    @cached_property
    def judge_recipe(self) -> dict[str, Any]:
        settings = self.run.settings
        return judges.judge_recipe(
            settings.judge, settings.judge_threshold, self.run.policy.concepts, settings.judges
        )

    def refuse_unloadable_judge(self) -> None:
        """Raises UserError for a judge that cannot be loaded, whatever its weights' values."""
        settings = self.run.settings
        judges.refuse_unloadable(
            settings.judge, settings.judge_threshold, self.run.policy.concepts, settings.judges
        )

    @cached_property
    def _adherence_recipe(self) -> dict[str, Any]:
        return adherence_recipe(self.run.settings.adherence, self.run.settings.clip)

    @cached_property
    def _features_recipe(self) -> dict[str, Any]:
        return features_recipe(self.run.settings.features, self.run.settings.clip)

    def _alignment(self, batch: Batch) -> Unit:
        """How well each image follows its own prompt, by the run's score."""
        settings = self.run.settings

        def compute(images: list[Image]) -> Any:
            from spqr_checks.metrics.adherence import adherence_scores

            by = settings.adherence, settings.clip, settings.device
            return adherence_scores(images, list(batch.prompts), *by)

        return self._on_images("alignment", batch, self._adherence_recipe, compute, settings.device)

    def _features(self, batch: Batch) -> Unit:
        return self._on_images(
            "features", batch, self._features_recipe, self._featured, self.run.settings.device
        )

    def _featured(self, images: Sequence[Image]) -> Any:
        from spqr_checks.metrics.features import image_features

        settings = self.run.settings
        by = settings.features, settings.clip, settings.device
        return image_features(images, *by).tolist()

    def dataset_features(self, spec: str, limit: int | None) -> Unit:
        """Features of reference images or of a fine-tuning set."""
        device = self.run.settings.device
        recipe = {
            "data": self.states.data_recipe(spec, captioned=False),
            "limit": limit,
            "by": self._features_recipe,
            "device": kind_of(device),
            "code": code_of(write_values),
        }

        def make(folder: Path) -> None:
            data = self.states.data(spec, limit, captioned=False)
            write_values(folder, "features", self._featured(data.images))

        def work() -> Work:
            settings, images = self.run.settings, limit
            known = next((n for n, given in self.run.datasets.items() if given == spec), None)
            if known is not None and limit == settings.dataset_limit:
                images = len(self.states.tuning_captions(known))
            return workloads.dataset_reading(settings, self.states.base_digest, spec, images)

        order = Order("data", spec=spec, limit=limit)
        state = BASE.name if spec.startswith("self:") else ""
        label = f"features of {spec}"
        return Unit("features", recipe, label, make, work=work, state=state, order=order)

    def ordered(self, order: Order) -> Unit:
        """The unit that an order of another process of this run means."""
        match order.makes:
            case "weights":
                return self.states.alignment_unit
            case "tuning":
                return self.states.tuning_unit(order.state)
            case "adaptation":
                return self.states.adapted.learning(order.state)
            case "data":
                return self.dataset_features(order.spec, order.limit)
        assert order.group is not None
        if order.makes == "attacked":
            assert order.attack is not None
            return self.attacks.unit(order.attack, order.state, order.group, *order.prompts)
        batch = Batch(order.state, order.group, order.prompts, order.seeds, order.attack)
        makers: dict[Makes, Callable[[Batch], Unit]] = {
            "images": self.images,
            "drawn": self._images,
            "verdicts": self.verdicts,
            "adherence": self.alignment,
            "features": self.features,
        }
        return makers[order.makes](batch)

    def weights(self) -> Iterator[Unit]:
        """Every alignment and fine-tuning of the run: what takes longest."""
        needs = [u for cell in self.run.matrix.cells for u in self.states.needs(cell.state)]
        yield from {digest(unit.recipe): unit for unit in needs}.values()

    def free(self) -> None:
        """Drops all models that this process holds; what is asked for next loads them again."""
        from spqr_checks.metrics.adherence import ADHERENCES
        from spqr_checks.metrics.clip import forget
        from spqr_checks.metrics.features import FEATURE_KINDS

        self._judge = self._guards = None
        for metrics in (ADHERENCES, FEATURE_KINDS):
            metrics.forget()
        forget()
        self.attacks.release()
        self.states.release()
