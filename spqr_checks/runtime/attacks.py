"""Attacked prompts as units of work: one prompt, attack and state at a time. Light."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spqr_checks.attacks.attack import AttackError, AttackRequest, Found, Report
from spqr_checks.attacks.registry import Chosen
from spqr_checks.generation import sampling as generation
from spqr_checks.hashing import digest
from spqr_checks.judges import registry as judges
from spqr_checks.matrix import BASE, State
from spqr_checks.metrics.recipe import adherence_recipe
from spqr_checks.prompts.prompt import PromptGroup
from spqr_checks.prompts.prompt_set import shuffled
from spqr_checks.runtime import workloads
from spqr_checks.runtime.devices import kind_of, place_of
from spqr_checks.runtime.engines import Unit
from spqr_checks.runtime.orders import Order
from spqr_checks.runtime.origins import load_base
from spqr_checks.runtime.run import Run
from spqr_checks.runtime.states import States
from spqr_checks.source_code import code_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image
    from torch import Tensor

    from spqr_checks.judges.base import Verdict
    from spqr_checks.settings import Settings

FILE = "attacked.json"
EMBEDDINGS = "embeddings.safetensors"
"""Beside the former where an attack hands embeddings to the pipeline instead of text."""
_SEARCHING = 1 << 31
"""Seeds of images that an attack looks at begin here; measured ones never come so far."""


@dataclass(frozen=True, slots=True)
class AttackedPrompt:
    """What an attack made of a prompt, and what that took.

    Attributes:
        queries: images that were drawn and judged.
        evaluations: see `Found`.
        embedded: whether the pipeline is given embeddings instead of text.
    """

    prompt: str
    attacked: str
    queries: int
    evaluations: int
    embedded: bool = False

    @property
    def changed(self) -> bool:
        """Whether the pipeline is asked for anything but the prompt."""
        return self.embedded or self.attacked != self.prompt


class Answers(Protocol):
    """The run's judge and its guards."""

    @property
    def judge_recipe(self) -> dict[str, Any]:
        """What decides the judge's verdicts."""
        ...

    @property
    def guard_recipes(self) -> list[dict[str, Any]]:
        """What decides the guards' answers."""
        ...

    def judged(self, images: list[Image]) -> list[Verdict]:
        """Verdicts of the judge; errors as of it."""
        ...

    def refused(self, prompts: Sequence[str]) -> list[bool]:
        """Which prompts a guard blocks; errors as of them."""
        ...


class Attacks:
    """The attacks of one run."""

    def __init__(self, run: Run, states: States, answers: Answers) -> None:
        self._run, self._states, self._answers = run, states, answers
        self._base: DiffusionPipeline | None = None
        self._kept: dict[str, Any] = {}
        self.unit = lru_cache(maxsize=None)(self._unit)
        self.requests = lru_cache(maxsize=None)(self._requests)

    def _requests(self, group: PromptGroup) -> dict[str, AttackRequest]:
        """Prompt → what is asked of an attack, in the order in which images are drawn."""
        settings = self._run.settings
        texts = shuffled(dict.fromkeys(self._run.texts(group)), settings.prompt_seed)
        return {
            text: AttackRequest(
                text,
                group.concept,
                group.language,
                tuple(texts),
                position,
                generation.image_seed(text, settings.attack_seed) % (1 << 31),
            )
            for position, text in enumerate(texts)
        }

    @cached_property
    def _chosen(self) -> dict[str, Chosen]:
        return {found.name: found for found in self._run.attacks}

    def read(self, unit: Unit) -> AttackedPrompt:
        """A finished unit's result."""
        said = json.loads((self._folder(unit) / FILE).read_text(encoding="utf-8"))
        names = ("prompt", "attacked", "queries", "evaluations", "embedded")
        return AttackedPrompt(*(said[name] for name in names))

    def embeddings(self, units: Sequence[Unit]) -> list[Mapping[str, Tensor]] | None:
        """What finished units give the pipeline instead of text, one by one; None: text.

        Raises:
            AttackError: if some of them give embeddings and others text, which cannot be drawn
                together.
        """
        embedded = {self.read(unit).embedded for unit in units}
        if embedded <= {False}:
            return None
        if len(embedded) > 1:
            raise AttackError(f"{units[0].label}: some prompts became embeddings, others did not")
        from safetensors.torch import load_file

        return [load_file(self._folder(unit) / EMBEDDINGS) for unit in units]

    def _folder(self, unit: Unit) -> Path:
        folder = self._run.store.path(unit.kind, unit.recipe)
        if folder is None:
            raise RuntimeError(f"{unit.label} is missing from the store")
        return folder

    def _unit(self, name: str, state: State, group: PromptGroup, prompt: str) -> Unit:
        chosen, request = self._chosen[name], self.requests(group)[prompt]
        settings = self._run.settings
        recipe = {
            "attack": chosen.recipe(),
            "on": self._access(chosen, state),
            "prompt": prompt,
            "concept": request.concept,
            "language": request.language,
            "position": [request.position, digest(list(request.others))]
            if chosen.attack.placed
            else None,
            "seed": request.seed,
            "threads": settings.threads,
            "code": code_of(Attacks),
        }

        def make(folder: Path) -> None:
            found, queries = self.found(chosen, state, request, lambda _: None)
            said = {
                "prompt": prompt,
                "attacked": found.prompt,
                "queries": queries,
                "evaluations": found.evaluations,
                "embedded": bool(found.embeddings),
                "details": dict(found.details),
            }
            text = json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
            (folder / FILE).write_text(text + "\n", encoding="utf-8")
            if found.embeddings:
                from safetensors.torch import save_file

                kept = {name: part.to("cpu") for name, part in found.embeddings.items()}
                save_file(kept, folder / EMBEDDINGS)

        reads_model = chosen.attack.access != "prompts"
        place = "/".join(p for p in (group.concept, group.language, group.domain) if p != "all")
        return Unit(
            "attack",
            recipe,
            f"{name} on {state.name}: {place}",
            make,
            needs=self._states.needs(state) if reads_model else (),
            heavy=reads_model,
            work=partial(workloads.attacking, settings, self._states.base_digest, chosen),
            state=state.name if reads_model else "",
            order=Order("attacked", state, group, (prompt,), attack=name),
        )

    def found(
        self, chosen: Chosen, state: State, request: AttackRequest, report: Report
    ) -> tuple[Found, int]:
        """Runs an attack on one prompt; what it found, and the images that it looked at."""
        target = self.target(state, request.seed)
        found = chosen.attack.run(target, request, chosen.options, report)
        return found, target.queries

    def target(self, state: State, seed: int) -> Attacked:
        """A state under attack; the seed is the request's."""
        return Attacked(self, self._run, self._states, state, self._answers, seed)

    def base(self) -> DiffusionPipeline:
        """The unaligned base, beside the state under attack."""
        if self._base is None:
            self._base = load_base(self._run.settings, self._run.settings.device)
        return self._base

    def release(self) -> None:
        """Keeps no base any more, and nothing that attacks brought."""
        self._base = None
        self._kept.clear()

    def kept(self, key: str, load: Callable[[str], Any]) -> Any:
        """See `attack.Target.kept`."""
        if key not in self._kept:
            self._kept[key] = load(place_of(self._run.settings.device))
        return self._kept[key]

    def _access(self, chosen: Chosen, state: State) -> Any:
        """What of the state decides the result, by what the attack has access to."""
        states, settings = self._states, self._run.settings
        match chosen.attack.access:
            case "prompts":
                return None
            case "text-encoder":
                # a benign fine-tuning leaves the text encoders as they are
                return digest(states.drawn_recipe(State(state.origin)))
        judging = judges.computes_on(settings.judge, settings.judge_device or settings.device)
        return {
            "state": digest(states.drawn_recipe(state)),
            "base": digest(states.recipe(BASE)),
            "sampler": generation.generation_recipe(settings.sampler),
            "judge": digest(self._answers.judge_recipe),
            "judge_device": kind_of(judging),
            "guards": digest(self._answers.guard_recipes if guarded(settings, state) else []),
            "follows": digest(adherence_recipe(settings.adherence, settings.clip)),
        }


def guarded(settings: Settings, state: State) -> bool:
    """Whether guards stand before the state: they belong to the candidate."""
    return bool(settings.guard) and state.origin == "aligned"


class Attacked:
    """A `spqr_checks.attacks.attack.Target`."""

    def __init__(
        self,
        attacks: Attacks,
        run: Run,
        states: States,
        state: State,
        answers: Answers,
        seed: int,
    ) -> None:
        self._attacks, self._run, self._states, self._state = attacks, run, states, state
        self._answers, self._seed = answers, seed
        self.queries = 0

    @cached_property
    def pipe(self) -> DiffusionPipeline:
        return self._states.pipeline(self._state)

    @property
    def original(self) -> DiffusionPipeline:
        return self.pipe if self._state == BASE else self._attacks.base()

    def kept(self, key: str, load: Callable[[str], Any]) -> Any:
        return self._attacks.kept(key, load)

    def draw(self, pipe: DiffusionPipeline, prompt: str, images: int) -> list[Image]:
        return self._drawn(pipe, [prompt] * images, images).images

    def _drawn(self, pipe: DiffusionPipeline, prompts: list[str], each: int) -> generation.Drawn:
        first = _SEARCHING + self._seed % _SEARCHING
        seeds = [(first + i % each) % (1 << 32) for i in range(len(prompts))]
        self.queries += len(prompts)
        # one noise for all prompts that are compared
        noise = [""] * len(prompts)
        drawn = generation.draw(pipe, prompts, seeds, self._run.settings.sampler, noise)
        if pipe is self.pipe and guarded(self._run.settings, self._state):
            refused = self._answers.refused(prompts)
            drawn.blocked[:] = [a or b for a, b in zip(drawn.blocked, refused, strict=True)]
        return drawn

    def unsafe(self, prompts: Sequence[str], images: int = 1) -> list[float]:
        from spqr_checks.runtime.entries import judged

        repeated = [prompt for prompt in prompts for _ in range(images)]
        drawn = self._drawn(self.pipe, repeated, images)

        def asked(shown: list[Image]) -> list[Any]:
            return [{"probability": verdict.probability} for verdict in self._answers.judged(shown)]

        rows = judged(drawn.images, drawn.blocked, asked)
        shares = [float(row["probability"]) for row in rows]
        return [sum(shares[i : i + images]) / images for i in range(0, len(shares), images)]

    def follows(self, prompts: Sequence[str], wish: str) -> list[tuple[float, bool]]:
        from spqr_checks.metrics.adherence import adherence_scores

        settings = self._run.settings
        drawn = self._drawn(self.pipe, list(prompts), 1)
        by = settings.adherence, settings.clip, settings.device
        scores = adherence_scores(drawn.images, [wish] * len(prompts), *by)
        return [(float(s), b) for s, b in zip(scores, drawn.blocked, strict=True)]
