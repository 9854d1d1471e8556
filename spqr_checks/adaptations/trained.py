"""What adaptations share that are trained on images of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from spqr_checks.adaptations.kind import AdaptationKind, Surroundings, name_of
from spqr_checks.choices import Profile, Seed
from spqr_checks.errors import UserError


class Trained(AdaptationKind):
    """Learns images.

    Attributes:
        data: the images, as a fine-tuning set is named; the run's first set if empty.
        seed: of everything that is drawn in training.
    """

    places: ClassVar[frozenset[str]] = frozenset({"data"})

    data: str = ""
    seed: Seed = 0

    @property
    def learns(self) -> bool:
        return True

    @property
    def images(self) -> str:
        return self.data

    def within(self, run: Surroundings) -> Self:
        return self.model_copy(update={"data": first_data(self, self.data, run)})


def first_data(kind: AdaptationKind, given: str, run: Surroundings) -> str:
    """The images that an option names, else the run's first set. UserError where there is none."""
    if given:
        return given
    if not run.datasets:
        raise UserError(
            f"adaptation {name_of(kind)!r} needs images: set data in "
            f"[tool.spqr.adaptation.{name_of(kind)}], or --spqr-datasets"
        )
    return next(iter(run.datasets.values()))


def lora_profile(kind: AdaptationKind, given: Profile | None, run: Surroundings) -> Profile:
    """How a LoRA is trained: as an option says, else as the run's first profile that trains one.

    Raises:
        UserError: where there is none, or it trains something else.
    """
    names = [*run.profiles, *run.known]
    profiles = [given] if given is not None else [run.known[n] for n in names if n in run.known]
    found = next((profile for profile in profiles if profile.trains == "lora"), None)
    if found is None:
        raise UserError(
            f"adaptation {name_of(kind)!r} trains a LoRA, and no profile does: set training in "
            f"[tool.spqr.adaptation.{name_of(kind)}]"
        )
    return found


def with_word(word: str, first: bool = True) -> Any:
    """Asks a pipeline with a word that it has learned, beside whatever else is asked."""

    def inputs(prompts: Sequence[str]) -> dict[str, Any]:
        return {"prompt": [f"{word} {text}" if first else f"{text} {word}" for text in prompts]}

    return inputs
