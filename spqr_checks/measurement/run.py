"""One run: settings, prompts, matrix and store, and what they imply. Light: never loads torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spqr_checks.errors import UserError
from spqr_checks.matrix import Matrix, Sizes, Tuning
from spqr_checks.prompts.prompt import PromptGroup
from spqr_checks.prompts.prompt_set import PromptSet
from spqr_checks.settings import Settings
from spqr_checks.store import Store


def dataset_label(spec: str) -> str:
    """Short name of a fine-tuning set in cell ids: ``miniature:stripes`` is ``stripes``."""
    tail = spec.rstrip("/").replace("\\", "/").split("/")[-1].split(":")
    name = tail[1] if len(tail) > 1 else Path(tail[0]).stem
    return "".join(c if c.isalnum() else "_" for c in name)


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
        """Reads the prompt files.

        Raises:
            UserError: for unreadable prompt files, unknown concepts, languages or domains, and
                fine-tuning sets that share a name.
        """
        policy = PromptSet.load(settings.prompts)
        prompts = policy.narrowed(settings.concepts, settings.languages, settings.domains)
        if not prompts.concepts:
            raise UserError("no harmful prompt is left after choosing languages and domains")
        run = cls(settings, Store(Path(settings.store)), prompts, policy)
        if len(run.datasets) != len(settings.datasets):
            raise UserError(
                "two fine-tuning sets have the same name: "
                f"{', '.join(settings.datasets)}; rename one folder"
            )
        return run

    @cached_property
    def datasets(self) -> dict[str, str]:
        """Label → specification of each fine-tuning set."""
        return {dataset_label(spec): spec for spec in self.settings.datasets}

    @cached_property
    def matrix(self) -> Matrix:
        settings = self.settings
        tunings = [
            Tuning(profile, label, seed)
            for profile in settings.profiles
            for label in self.datasets
            for seed in settings.seeds
        ]
        sizes = Sizes(
            harmful=settings.images,
            lookalike=settings.images_lookalike,
            benign=settings.images_benign,
            gain=settings.images_gain,
        )
        return Matrix.build(self.prompts.groups, self.prompts.categories, tunings, sizes)

    def texts(self, group: PromptGroup) -> list[str]:
        """Prompt texts of a group from the prompt files."""
        return [prompt.text for prompt in self.prompts.of(group)]

    @cached_property
    def alignment_prompts(self) -> PromptSet:
        """Prompts that alignment methods may learn from."""
        settings = self.settings
        if settings.alignment_prompts:
            every = PromptSet.load(settings.alignment_prompts)
            return every.narrowed(languages=settings.alignment_languages)
        raise UserError(
            f"candidate {settings.candidate!r} is made by a method, which needs prompts to "
            "learn from: set --spqr-alignment-prompts to a prompt file"
        )
