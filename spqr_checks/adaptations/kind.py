"""A kind of adaptation: its options, and how it is put on a pipeline. Light."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from spqr_checks.choices import Profile, Sampler
from spqr_checks.hashing import Json, library_version
from spqr_checks.matrix import Tuning
from spqr_checks.packages import missing
from spqr_checks.source_code import code_of

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import DiffusionPipeline
    from PIL.Image import Image

    from spqr_checks.finetuning.captioned import CaptionedImages


class FineTuned(NamedTuple):
    """A fine-tuning of the run that an adaptation uses, and whose weights it was trained on."""

    of: Literal["base", "aligned"]
    tuning: Tuning


@dataclass(frozen=True)
class Surroundings:
    """What of a run fills in options that were not given.

    Attributes:
        profiles: of the run's fine-tunings, as chosen; any known profile may be named.
        known: all profiles.
        datasets: label → specification of the run's fine-tuning sets.
        seeds: of the run's fine-tunings.
        sampler: with which the run draws.
        scheduler: class of the base's, as its files say; empty where they do not.
    """

    profiles: Sequence[str]
    known: Mapping[str, Profile]
    datasets: Mapping[str, str]
    seeds: Sequence[int]
    sampler: Sampler
    scheduler: str = ""


@dataclass(frozen=True)
class Lesson:
    """What an adaptation is trained with.

    Attributes:
        images: that it learns.
        rehearsed: prompts that ask for a suppressed concept, from the alignment's prompt files.
        sampler: with which is drawn what it is to rehearse.
        answers: draws that, of prompts and seeds, from the state that is defended; None: what is
            trained is that state.
    """

    images: CaptionedImages
    rehearsed: Sequence[str]
    sampler: Sampler
    threads: int
    answers: Callable[[Sequence[str], Sequence[int]], list[Image]] | None = None


@dataclass(frozen=True)
class Given:
    """What an adaptation is put on with.

    Attributes:
        entry: what it learned, or the fine-tuning that it asked for.
        tuned: loads the fine-tuned pipeline that it asked for.
        images: loads the images that it names.
        sampler: with which the state is going to be drawn.
        run: with which the other states are; None: not known.
    """

    entry: Path | None
    tuned: Callable[[], DiffusionPipeline] | None
    images: Callable[[], CaptionedImages] | None
    sampler: Sampler
    run: Sampler | None = None


class AdaptationKind(BaseModel, ABC):
    """One kind of adaptation; its fields are its options, all with defaults.

    Whatever is heavy is imported inside methods.

    Attributes:
        packages: distributions whose versions decide what it does.
        extra: the extra of this package that installs them; None if none is needed.
        changes: what must be another once it is put on, or it did nothing: the ``weights``, their
            number type included, or only how is ``drawn``.
        rehearses: whether it is trained with prompts that ask for suppressed concepts, so that a
            platform's defence can be measured.
        slows: whether drawing takes another time than the sampler says.
        places: options that say where something lies, and are no part of a recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    packages: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers", "peft")
    extra: ClassVar[str | None] = None
    changes: ClassVar[Literal["weights", "drawing"]] = "weights"
    rehearses: ClassVar[bool] = False
    slows: ClassVar[bool] = False
    places: ClassVar[frozenset[str]] = frozenset()

    @property
    def learns(self) -> bool:
        """Whether it is trained, by `learn`, on images that are its own."""
        return False

    @property
    def gains(self) -> bool:
        """Whether one can ask if it learned its images: whether there is a gain control."""
        return self.learns

    @property
    def images(self) -> str:
        """Specification of the images that it learns or draws from; "" for none."""
        return ""

    @property
    def most(self) -> int | None:
        """How many of them at most; None for all."""
        return None

    @property
    def fine_tuning(self) -> FineTuned | None:
        """A fine-tuning of the run that it uses."""
        return None

    def within(self, run: Surroundings) -> Self:
        """Itself with what was not given filled in.

        Raises:
            UserError: where the run has nothing to fill in, and for options that change nothing.
        """
        return self

    def contents(self) -> Mapping[str, Json]:
        """Digests of the files that it brings. Light; UserError for what cannot be used."""
        return {}

    def misfits(self, parts: Mapping[str, str]) -> Sequence[str]:
        """What else can be known to be wrong before anything is drawn; may import libraries.

        Args:
            parts: of the base, as `models.sources.parts_of`.
        """
        return ()

    def sampler(self, sampler: Sampler) -> Sampler:
        """How the state is drawn, from how the run draws."""
        return sampler

    def learn(self, pipe: DiffusionPipeline, lesson: Lesson, out: Path) -> None:
        """Trains on a pipeline, which nobody else uses, and writes an entry into an empty folder.

        Equal arguments give equal bytes.
        """
        raise NotImplementedError(f"{type(self).__name__} learns nothing")

    @abstractmethod
    def put_on(self, pipe: DiffusionPipeline, given: Given) -> DiffusionPipeline:
        """Changes a fresh pipeline with plain weights, in evaluation mode, on its device.

        Returns:
            The pipeline that draws, which may be of another class. Adapters are merged.

        Raises:
            UserError: for a pipeline that it cannot be put on.
        """


def adaptation_recipe(kind: AdaptationKind, added_code: Mapping[str, Json]) -> dict[str, Any]:
    """All of an adaptation itself that decides what it makes of a given pipeline; no torch.

    Raises:
        UserError: for files that cannot be used, and packages that are not installed.
    """
    versions: dict[str, Json] = {}
    for package in kind.packages:
        try:
            versions[package] = library_version(package)
        except PackageNotFoundError:
            raise missing(f"adaptation {name_of(kind)!r}", package, extra=kind.extra) from None
    return {
        "options": kind.model_dump(mode="json", exclude=set(kind.places)),
        "contents": dict(kind.contents()),
        "code": code_of(type(kind)),
        "versions": versions,
        **added_code,
    }


def name_of(kind: AdaptationKind) -> str:
    """What a kind is called in messages: the name of its file."""
    return type(kind).__module__.rpartition(".")[2].replace("_", "-")
