"""One run: settings, prompts, matrix and store, and what they imply. Light: never loads torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spqr_checks.adaptations.chosen import Named, chosen
from spqr_checks.adaptations.kind import Surroundings
from spqr_checks.attacks import registry as attacks
from spqr_checks.errors import UserError
from spqr_checks.finetuning.datasets import pinned as pinned_set
from spqr_checks.matrix import Adaptation, Matrix, Sizes, State, Tuning
from spqr_checks.models.sources import parts_of
from spqr_checks.prompts.hub import is_url
from spqr_checks.prompts.overlap import Overlap, find_overlap
from spqr_checks.prompts.prompt import PromptGroup
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.prompts.sources import pinned
from spqr_checks.settings import Settings
from spqr_checks.store.store import Store


def dataset_label(spec: str) -> str:
    """Short name of a fine-tuning set in cell ids: ``miniature:stripes`` is ``stripes``.

    A set on the Hub has the name of its repository, at every revision.
    """
    if is_url(spec):
        spec = spec.removeprefix("hf://").removeprefix("datasets/").split("/")[1].partition("@")[0]
    tail = spec.rstrip("/").replace("\\", "/").split("/")[-1].split(":")
    return _as_label(tail[1] if len(tail) > 1 else Path(tail[0]).stem)


def dataset_labels(specs: Sequence[str]) -> dict[str, str]:
    """Label → specification; sets whose short names are the same have longer ones.

    ``miniature:outline:600:en`` beside ``miniature:outline:600:hi`` is ``outline_600_en``, and
    ``data/a/birds`` beside ``data/b/birds`` is ``a_birds``.
    """
    short = [dataset_label(spec) for spec in specs]
    return {
        _long_label(spec) if short.count(name) > 1 else name: spec
        for name, spec in zip(short, specs, strict=True)
    }


def _long_label(spec: str) -> str:
    if is_url(spec):
        spec = spec.partition("@")[0]
    return _as_label("/".join(spec.removeprefix("miniature:").rstrip("/").split("/")[-2:]))


def _as_label(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _blamed(
    settings: Settings, field: str, make: Callable[..., PromptSet], *given: Any, **named: Any
) -> PromptSet:
    """What ``make`` gives; its UserError says where the setting was said."""
    try:
        return make(*given, **named)
    except UserError as error:
        raise UserError(*(settings.blamed(field, one) for one in error.problems)) from None


@dataclass(frozen=True)
class Run:
    """Everything that measuring needs to know.

    Attributes:
        prompts: the prompts in scope (chosen concepts, languages, domains).
        policy: every concept of the prompt files, chosen or not: a judge that sees any of them
            calls the image unsafe, and no fine-tuning data may name them.
    """

    settings: Settings
    store: Store
    prompts: PromptSet
    policy: PromptSet

    @classmethod
    def from_settings(cls, settings: Settings) -> Run:
        """Reads the prompt files. Hub addresses are kept with the commit that they stood for.

        Raises:
            UserError: for unreadable prompt files, unknown concepts, languages or domains, and
                fine-tuning sets that share a name.
        """
        settings = settings.model_copy(
            update={
                name: tuple(pinned(source) for source in getattr(settings, name))
                for name in ("prompts", "alignment_prompts")
            }
            | {
                "datasets": tuple(pinned_set(spec) for spec in settings.datasets),
                "reference": pinned_set(settings.reference),
            }
        )
        doubtful = settings.doubtful_translations == "use"
        policy = prompts = _blamed(settings, "prompts", PromptSet.load, settings.prompts, doubtful)
        for field in ("concepts", "languages"):
            chosen = {field: getattr(settings, field)}
            prompts = _blamed(settings, field, prompts.narrowed, **chosen)
        prompts = prompts.sampled(settings.prompts_per_group, settings.prompt_seed)
        prompts = _blamed(settings, "wrap", prompts.wrapped, settings.wrap)
        prompts = _blamed(settings, "domains", prompts.narrowed, domains=settings.domains)
        if settings.matrix == "paper":
            prompts = prompts.within(settings.scenario.values())
        if not prompts.concepts:
            raise UserError("no harmful prompt is left after choosing languages and domains")
        run = cls(settings, Store(Path(settings.store)), prompts, policy)
        if settings.matrix == "own" and len(run.datasets) != len(settings.datasets):
            raise UserError(
                "two fine-tuning sets have the same name: "
                f"{', '.join(settings.datasets)}; name each once, or rename one folder"
            )
        return run

    @cached_property
    def datasets(self) -> dict[str, str]:
        """Label → specification of each fine-tuning set."""
        if self.settings.matrix == "paper":
            return {name: scenario.data for name, scenario in self.settings.scenario.items()}
        return dataset_labels(self.settings.datasets)

    @cached_property
    def adaptations(self) -> dict[str, Named]:
        """By the name of its states: each adaptation, with what the run fills in.

        Raises:
            UserError: for unknown names and options, and what this run has nothing to fill in for.
        """
        settings = self.settings
        surroundings = Surroundings(
            settings.profiles,
            settings.profile,
            self.datasets,
            settings.seeds,
            settings.sampler,
            parts_of(settings.base).get("scheduler", "") if settings.adaptations else "",
        )
        found = {
            name: replace(named, kind=named.kind.within(surroundings))
            for name, named in chosen(settings.adaptations, settings.adaptation).items()
        }
        if shared := sorted(found.keys() & self.datasets.keys()):
            raise UserError(
                f"an adaptation and a fine-tuning set are both called {shared[0]!r}; rename one"
            )
        return found

    def learned_by(self, state: State) -> tuple[str, int | None]:
        """Specification of the images that a state was trained on, and how many at most."""
        assert state.data is not None
        return self.learned_as(state.data)

    def learned_as(self, label: str) -> tuple[str, int | None]:
        """The same by label: of a fine-tuning set, or the name of an adaptation with images."""
        limit = self.settings.dataset_limit
        if label in self.datasets:
            return self.datasets[label], limit
        kind = self.adaptations[label].kind
        known = (kind.most, limit if kind.images in self.settings.datasets else None)
        return kind.images, min((most for most in known if most is not None), default=None)

    @cached_property
    def matrix(self) -> Matrix:
        settings = self.settings
        tunings = [
            Tuning(profile, label, seed)
            for profile in settings.profiles
            for label in self.datasets
            for seed in settings.seeds
        ]
        kinds = ("lookalike", "benign", "gain")
        more = {kind: getattr(settings, f"images_{kind}") for kind in kinds}
        sizes = Sizes(harmful=settings.images, **more, attacked=settings.attack_prompts)
        adaptations = [Adaptation(k, one.kind.gains) for k, one in self.adaptations.items()]
        reached = {found.name: found.covers(self.prompts.prompts) for found in self.attacks}
        about = self.prompts.groups, self.prompts.categories
        return Matrix.build(*about, tunings, sizes, adaptations, reached)

    @cached_property
    def attacks(self) -> tuple[attacks.Chosen, ...]:
        """The run's attacks. Raises UserError for one that it cannot have, or not with guards."""
        found = attacks.chosen(self.settings.attacks, self.settings.attack)
        attacks.refuse_guarded(found, self.settings.guard)
        return found

    def texts(self, group: PromptGroup) -> list[str]:
        """Prompt texts of a group from the prompt files."""
        return [prompt.text for prompt in self.prompts.of(group)]

    @cached_property
    def alignment_prompts(self) -> PromptSet:
        """Prompts that alignment methods may learn from."""
        settings = self.settings
        if not settings.alignment_prompts:
            raise UserError(
                f"candidate {settings.candidate!r} is made by a method, which needs prompts to "
                "learn from: set --spqr-alignment-prompts to a prompt file"
            )
        every = PromptSet.load(settings.alignment_prompts, settings.doubtful_translations == "use")
        return every.narrowed(languages=settings.alignment_languages)

    @cached_property
    def overlap(self) -> Overlap | None:
        """Measured prompts that the candidate's method learned from; None without a method."""
        if not self.settings.candidate.startswith("method:"):
            return None
        return find_overlap(self.prompts.prompts, self.alignment_prompts.prompts)

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What people should know of the prompts, a line each."""
        found = []
        for source, reading in self.policy.readings.items():
            if reading.dropped:
                why = ", ".join(f"{n} {reason}" for reason, n in reading.reasons.items())
                found.append(f"{source}: {len(reading.dropped)} prompts left out: {why}")
        if self.overlap:
            found.append(
                f"{len(self.overlap.normalised)} of {self.overlap.tested} measured prompts are "
                "among those that the method learned from; see spqr prompts check"
            )
        return tuple(found)
