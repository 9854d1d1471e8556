"""States under adaptations that are no fine-tuning: recipes (light), and how they are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spqr_checks.adaptations.chosen import Named
from spqr_checks.adaptations.kind import AdaptationKind, Given, Lesson
from spqr_checks.choices import Sampler
from spqr_checks.finetuning.families.registry import FAMILIES
from spqr_checks.generation import sampling as generation
from spqr_checks.matrix import State
from spqr_checks.models.sources import parts_of
from spqr_checks.runtime import workloads
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.orders import Order
from spqr_checks.runtime.run import Run
from spqr_checks.source_code import code_of
from spqr_checks.store.timings import Work

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

    from spqr_checks.finetuning.captioned import CaptionedImages

_APPLYING = "spqr_checks.adaptations.applying"


class Whole(Protocol):
    """What is needed of the other states; `states.States`."""

    @property
    def base_digest(self) -> str: ...
    def recipe(self, state: State) -> dict[str, Any]: ...
    def needs(self, state: State) -> tuple[Unit, ...]: ...
    def attaches_to(self, state: State) -> State: ...
    def tuning_unit(self, state: State) -> Unit: ...
    def tuning_captions(self, label: str) -> list[str]: ...
    def data_recipe(self, spec: str, *, captioned: bool = True) -> dict[str, Any]: ...
    def data(self, spec: str, limit: int | None, *, captioned: bool = True) -> CaptionedImages: ...
    def release(self) -> None: ...
    def fresh(self, state: State, device: str) -> DiffusionPipeline: ...
    def entry(self, unit: Unit) -> Path: ...


class Adapted:
    """The adapted states of one run."""

    def __init__(self, run: Run, states: Whole) -> None:
        self._run, self._states = run, states

    def recipe(self, state: State) -> dict[str, Any]:
        """All of the adaptation that decides the weights of a state, and how it is drawn."""
        found: dict[str, Any] = {"itself": self._named(state).recipe(), "code": code_of(_APPLYING)}
        if (unit := self._unit(state)) is not None:
            found["learned"] = unit.recipe
        if self._kind(state).images and not self._kind(state).learns:
            found["images"] = self._images(state)
        return found

    def needs(self, state: State) -> tuple[Unit, ...]:
        """What must exist besides the released weights."""
        unit = self._unit(state)
        return () if unit is None else (unit,)

    def sampler(self, state: State) -> Sampler:
        """How the state is drawn."""
        own = self._run.settings.sampler
        return own if state.adaptation is None else self._kind(state).sampler(own)

    def slows(self, state: State) -> str:
        """The adaptation where it makes drawing take another time than its sampler says, or ""."""
        slows = state.adaptation is not None and self._kind(state).slows
        return self._named(state).entry if slows else ""

    def misfits(self) -> Iterator[str]:
        """What is known to be wrong with adaptations before anything is loaded."""
        parts = parts_of(self._run.settings.base)
        for named in self._run.adaptations.values():
            yield from named.kind.misfits(parts)

    def put_on(self, state: State, pipe: DiffusionPipeline, device: str) -> DiffusionPipeline:
        """The state, from its released pipeline, which must not be used any more."""
        from spqr_checks.adaptations.applying import apply_adaptation

        kind, unit, states = self._kind(state), self._unit(state), self._states
        tuned = self._tuned(state)
        given = Given(
            entry=None if unit is None else states.entry(unit),
            tuned=None if tuned is None else partial(states.fresh, tuned, device),
            images=partial(states.data, *self._learned(state), captioned=kind.learns)
            if kind.images
            else None,
            sampler=self.sampler(state),
            run=self._run.settings.sampler,
        )
        return apply_adaptation(pipe, kind, given)

    def _learned(self, state: State) -> tuple[str, int | None]:
        assert state.adaptation is not None
        return self._run.learned_as(state.adaptation.name)

    def _images(self, state: State) -> dict[str, Any]:
        spec, most = self._learned(state)
        recipe = self._states.data_recipe(spec, captioned=self._kind(state).learns)
        return {"of": recipe, "most": most}

    def _named(self, state: State) -> Named:
        assert state.adaptation is not None
        return self._run.adaptations[state.adaptation.name]

    def _kind(self, state: State) -> AdaptationKind:
        return self._named(state).kind

    def _tuned(self, state: State) -> State | None:
        """The fine-tuned state that the adaptation of a state uses."""
        asked = self._kind(state).fine_tuning
        if asked is None:
            return None
        # of the base, its own: what is adapted then is the base as well
        return State("base" if state.origin == "base" else asked.of, asked.tuning)

    def _unit(self, state: State) -> Unit | None:
        """What is trained for a state."""
        if (tuned := self._tuned(state)) is not None:
            return self._states.tuning_unit(tuned)
        return self.learning(state) if self._kind(state).learns else None

    def learning(self, state: State) -> Unit:
        """The training of an adaptation, on the weights to which users' fine-tuning attaches.

        What it rehearses is drawn by the state as released, whose answers are to be kept.
        """
        run, states, named, kind = self._run, self._states, self._named(state), self._kind(state)
        released = State(state.origin)
        start = states.attaches_to(released)
        assert state.adaptation is not None
        label = state.adaptation.name
        prompts = self._rehearsed(kind)
        rehearsed = {"prompts": prompts, "of": states.recipe(released)} if prompts else None
        recipe = {
            "on": states.recipe(start),
            "itself": named.recipe(),
            "images": self._images(state),
            "rehearsed": rehearsed,
            "sampler": generation.generation_recipe(run.settings.sampler),
            "threads": run.settings.threads,
            "code": code_of(Lesson, *FAMILIES.modules()),
            **FAMILIES.added_code(),
        }

        def make(folder: Path) -> None:
            states.tuning_captions(label)
            images = states.data(*self._learned(state))
            states.release()
            pipe = states.fresh(start, run.settings.device)
            lesson = self.lesson(label, images)
            if prompts and start != released:
                lesson = replace(lesson, answers=answers)
            kind.learn(pipe, lesson, folder)

        def answers(asked: Sequence[str], seeds: Sequence[int]) -> list[Image]:
            defended = states.fresh(released, run.settings.device)
            return generation.generate(defended, asked, seeds, run.settings.sampler)

        of_both = (*states.needs(start), *(states.needs(released) if prompts else ()))
        needs, work = tuple(dict.fromkeys(of_both)), partial(self.learning_work, label)
        return Unit(
            *("adaptation", recipe, f"{label} on {start.name}", make, needs),
            work=work,
            state=start.name,
            order=Order("adaptation", state),
        )

    def learning_work(self, name: str) -> Work:
        """What the cost of an adaptation's training depends on."""
        named, settings = self._run.adaptations[name], self._run.settings
        about = named.kind.images, named.kind.model_dump()
        return workloads.adapting(settings, self._states.base_digest, named.entry, *about)

    def lesson(self, name: str, images: CaptionedImages) -> Lesson:
        """What an adaptation is trained with, on these images."""
        settings, kind = self._run.settings, self._run.adaptations[name].kind
        return Lesson(images, self._rehearsed(kind), settings.sampler, settings.threads)

    def _rehearsed(self, kind: AdaptationKind) -> list[str]:
        taught = self._run.alignment_prompts.prompts if kind.rehearses else ()
        return [prompt.text for prompt in taught if prompt.kind == "harmful"]
