"""What adaptations share that start from benign pictures: which, and of what size."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from spqr_checks.adaptations.kind import AdaptationKind, Given, Surroundings, name_of
from spqr_checks.adaptations.trained import first_data
from spqr_checks.choices import Sampler
from spqr_checks.errors import UserError
from spqr_checks.hashing import digest

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image


class FromPictures(AdaptationKind):
    """Draws into benign pictures, one of them for each prompt, chosen by the prompt's text.

    Latents begin with the picture, so that images are paired on prompt and seed with those from
    text alone, but not on noise.

    Attributes:
        data: the pictures, as a fine-tuning set is named; the run's first set if empty.
        few: of them at most.
        strength: how far a picture is noised before it is drawn anew; at 1 wholly.
        width, height: to which pictures are brought; the run's if not given, else the model's own.
    """

    changes: ClassVar[Literal["weights", "drawing"]] = "drawing"
    slows: ClassVar[bool] = True
    places: ClassVar[frozenset[str]] = frozenset({"data"})

    data: str = ""
    few: Annotated[int, Field(ge=1)] = 24
    strength: Annotated[float, Field(gt=0, le=1)] = 0.8
    width: int | None = None
    height: int | None = None

    @staticmethod
    @abstractmethod
    def known() -> Mapping[str, type]:
        """diffusers' pipelines that start from pictures, by the name of their kind of model."""

    def misfits(self, parts: Mapping[str, str]) -> Sequence[str]:
        from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

        name, plain = parts.get("_class_name"), AUTO_TEXT2IMAGE_PIPELINES_MAPPING
        kinds = {kind for kind, pipeline in plain.items() if pipeline.__name__ == name}
        return [self._refusal(name)] if name and kinds.isdisjoint(self.known()) else []

    def _refusal(self, pipeline: str) -> str:
        return (
            f"adaptation {name_of(self)!r}: diffusers has no such pipeline beside {pipeline}; "
            "leave it out"
        )

    @property
    def images(self) -> str:
        return self.data

    @property
    def most(self) -> int:
        return self.few

    def within(self, run: Surroundings) -> Self:
        size = (self.width or run.sampler.width, self.height or run.sampler.height)
        filled = {"data": first_data(self, self.data, run), "width": size[0], "height": size[1]}
        return self.model_copy(update=filled)

    def sampler(self, sampler: Sampler) -> Sampler:
        return sampler.model_copy(update={"width": None, "height": None})

    def converted(
        self,
        pipe: DiffusionPipeline,
        given: Given,
        convert: Callable[[DiffusionPipeline], DiffusionPipeline],
        asked: Callable[[Image], dict[str, Any]],
    ) -> DiffusionPipeline:
        """The pipeline of another class that starts from pictures, asked with one per prompt.

        Args:
            convert: from the one class to the other, with the same networks.
            asked: what each picture adds to a call, besides the picture.
        """
        from PIL import Image, ImageOps

        from spqr_checks.finetuning.families.registry import family_of
        from spqr_checks.generation.call_inputs import carry_inputs
        from spqr_checks.models.pipelines import quiet

        height, width = family_of(pipe).own_size(pipe)
        size = (self.width or width, self.height or height)
        assert given.images is not None
        loaded = given.images().images
        pictures = [ImageOps.fit(one, size, Image.Resampling.LANCZOS) for one in loaded]
        try:
            with quiet():
                other = convert(pipe)
        except ValueError:
            raise UserError(self._refusal(type(pipe).__name__)) from None

        # some take the size of the pictures, others draw at the model's own unless they are told
        takes = inspect.signature(type(other).__call__).parameters
        sides = {"width": size[0], "height": size[1]}
        told = {name: side for name, side in sides.items() if name in takes}

        def inputs(prompts: Sequence[str]) -> dict[str, Any]:
            chosen = [pictures[int(digest(text)[:8], 16) % len(pictures)] for text in prompts]
            more = [asked(picture) for picture in chosen]
            listed = {key: [one[key] for one in more] for key in (more[0] if more else ())}
            return {"image": chosen, "strength": self.strength} | told | listed

        carry_inputs(other, inputs)
        return other
