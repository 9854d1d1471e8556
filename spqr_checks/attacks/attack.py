"""An attack: a name, the access that it needs, its options, and the function that finds a prompt.

Light: heavy libraries are imported where an attack searches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from spqr_checks.errors import UserError, refused_field
from spqr_checks.hashing import Json, library_version
from spqr_checks.prompts.prompt import Prompt, PromptGroup
from spqr_checks.source_code import code_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image
    from torch import Tensor

Access = Literal["prompts", "text-encoder", "query", "weights"]
"""What an attacker has: nothing of the model; its text encoders; its images and the judge; all."""
Reads = Literal["nothing", "tokens", "pooled"]
"""Which output of the text encoders a search steers: none, each token's, or one for the prompt."""
Scale = Literal["cosine", "probability", "logit"]
"""What numbers the run's score of adherence gives, which `Target.follows` answers with."""
UNETS = ("UNet2DConditionModel",)
DENOISERS = (*UNETS, "SD3Transformer2DModel", "FluxTransformer2DModel")
"""Those through which gradients are taken."""
_LIBRARIES = ("torch", "diffusers", "transformers")


class AttackError(Exception):
    """A search cannot go on. Its cell is an error: what it found so far says nothing."""


def finite(loss: float, attack: str) -> float:
    """The loss itself. Raises AttackError for NaN and infinity, by which no search can be led."""
    if not math.isfinite(loss):
        raise AttackError(
            f"attack {attack!r}: its loss is NaN or infinity; try sampler and weights in full "
            "precision (dtype = float32), or leave the attack out"
        )
    return loss


class Options(BaseModel):
    """Base of an attack's options: frozen, and unknown names are refused.

    Attributes:
        compat: repeats the quirks of the authors' code; docs/attacks.md lists them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    compat: bool = False


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True, slots=True)
class AttackRequest:
    """One prompt to attack.

    Attributes:
        concept: what the prompt asks for, in words.
        others: harmful prompts of the same group, the prompt's own included.
        position: of the prompt among these.
        seed: decides every random choice of the attack, and is the prompt's own.
    """

    prompt: str
    concept: str
    language: str
    others: tuple[str, ...]
    position: int
    seed: int


@dataclass(frozen=True, slots=True)
class Found:
    """What an attack found.

    Attributes:
        prompt: as it is given to the pipeline.
        evaluations: prompts that the text encoder or the denoiser was asked about.
        details: numbers for people, such as the last loss.
        embeddings: what the pipeline is given in the prompt's place, by the name of its parameter
            (``prompt_embeds``), of one prompt, without an axis for a batch; empty: the prompt.
    """

    prompt: str
    evaluations: int = 0
    details: Mapping[str, float] = field(default_factory=dict)
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)


class Target(Protocol):
    """The state under attack, as far as the attack's access goes. Images that it draws count."""

    @property
    def pipe(self) -> DiffusionPipeline:
        """The state itself; for the access ``text-encoder`` and ``weights``."""
        ...

    @property
    def original(self) -> DiffusionPipeline:
        """The unaligned base; for the access ``weights``."""
        ...

    def kept(self, key: str, load: Callable[[str], Any]) -> Any:
        """What an attack brings itself, such as a language model: loaded once for all prompts.

        Args:
            key: under which it is kept.
            load: is given the device on which the state computes.
        """
        ...

    def draw(self, pipe: DiffusionPipeline, prompt: str, images: int) -> list[Image]:
        """Images of a prompt, with seeds of the attack's own: never those that are measured."""
        ...

    def unsafe(self, prompts: Sequence[str], images: int = 1) -> list[float]:
        """P(unsafe) of each prompt, by the run's judge: the mean over so many images of it.

        A blocked image is safe. Raises JudgeError for what the judge does not answer.
        """
        ...

    def follows(self, prompts: Sequence[str], wish: str) -> list[tuple[float, bool]]:
        """Of one image of each prompt, how well it follows ``wish``, and whether it was blocked."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search is; ``step`` counts from 1."""

    step: int
    steps: int


Report = Callable[[Progress], None]
Search = Callable[[Target, AttackRequest, OptionsT, Report], Found]


@dataclass(frozen=True)
class Attack(Generic[OptionsT]):
    """One attack: ``ATTACK`` in a file of this folder.

    Attributes:
        reads: what of the text encoders its search steers; pipelines without are refused.
        through: classes of denoisers that its search can go through; none: it does not.
        embeds: whether it hands embeddings to the pipeline, which no guard can read.
        source: the option that SOURCE of ``NAME=SOURCE`` is; empty where there is none.
        needs: raises UserError for options without which, or with which, nothing can be found.
        fits: raises UserError for options that mean nothing in the scale of the run's adherence.
        contents: what of files that options name decides the result. Light.
        covers: the groups that it has prompts for; None: every one.
        placed: whether the place of a prompt in its group decides the result.
    """

    name: str
    access: Access
    options: type[OptionsT]
    run: Search[OptionsT]
    reads: Reads = "nothing"
    through: tuple[str, ...] = ()
    embeds: bool = False
    source: str = ""
    needs: Callable[[OptionsT], object] = lambda _: None
    fits: Callable[[OptionsT, Scale], object] = lambda *_: None
    contents: Callable[[OptionsT], Json] = lambda _: None
    covers: Callable[[OptionsT, Sequence[Prompt]], Collection[PromptGroup]] | None = None
    placed: bool = False

    def parse(self, given: Mapping[str, Any]) -> OptionsT:
        """Options with defaults filled in; UserError for those that it cannot have."""
        try:
            options = self.options.model_validate(dict(given))
        except ValidationError as error:
            known = ", ".join(self.options.model_fields)
            raise UserError(
                f"attack {self.name!r}: {refused_field(error, 'option')}\nits options: {known}"
            ) from None
        self.needs(options)
        return options

    def recipe(self, options: OptionsT) -> dict[str, Json]:
        """All of the attack that decides what it finds, without importing torch."""
        return {
            "name": self.name,
            "options": options.model_dump(mode="json"),
            "contents": self.contents(options),
            "code": code_of(Attack, self.options, self.run),
            "versions": {library: library_version(library) for library in _LIBRARIES},
        }
