"""An alignment method: a name, its options, and the function that trains or edits a pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from spqr_checks.alignment.request import AlignmentRequest, Report, no_report
from spqr_checks.errors import UserError, refused_field
from spqr_checks.finetuning.families.registry import FAMILIES, family_of
from spqr_checks.hashing import Json, library_version
from spqr_checks.models.sources import source_recipe
from spqr_checks.source_code import code_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

    from spqr_checks.finetuning.families.base import TransformerFamily

Attach = Literal["released", "base"]
RECORD = "alignment.json"
_LIBRARIES = ("torch", "diffusers", "transformers", "peft")


class Options(BaseModel):
    """Base of a method's options: frozen, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def models(self) -> tuple[str, ...]:
        """Folders or Hub ids of models that are read beside the base."""
        return ()


OptionsT = TypeVar("OptionsT", bound=Options)
Align = Callable[["DiffusionPipeline", AlignmentRequest, OptionsT, Path, Report], None]
"""Aligns the pipeline in place and writes a weights or adapter entry into the folder."""


@dataclass(frozen=True)
class Method(Generic[OptionsT]):
    """One alignment method. ``run`` must import heavy libraries inside itself.

    ``attach`` says where users' fine-tuning attaches unless the run's settings say otherwise: to
    the ``released`` weights, or to the original ``base``, the method's adapter put on afterwards.
    ``transformers`` says whether it knows what to change in them, or in UNets alone.
    ``added_code`` is set by the registry for a method of another distribution.
    """

    name: str
    options: type[OptionsT]
    run: Align[OptionsT]
    attach: Attach = "released"
    transformers: bool = False
    added_code: Mapping[str, Json] = field(default_factory=dict)

    def parse(self, given: Mapping[str, Any]) -> OptionsT:
        """Options with defaults filled in.

        Raises UserError for an unknown option or a value of the wrong kind.
        """
        try:
            return self.options.model_validate(dict(given))
        except ValidationError as error:
            known = ", ".join(self.options.model_fields)
            raise UserError(
                f"method {self.name!r}: {refused_field(error, 'option')}\nits options: {known}"
            ) from None

    def recipe(self, options: OptionsT) -> dict[str, Any]:
        """All of the method that decides the aligned weights, without importing torch.

        Raises UserError for a model that it reads and that is not there.
        """
        families = FAMILIES.modules() if self.transformers else ()
        return {
            "name": self.name,
            "options": options.model_dump(mode="json"),
            "models": [source_recipe(source) for source in options.models],
            "code": code_of(Method, self.options, self.run, *families),
            "versions": {library: library_version(library) for library in _LIBRARIES},
            **self.added_code,
            **(FAMILIES.added_code() if self.transformers else {}),
        }

    def align(
        self,
        pipe: DiffusionPipeline,
        request: AlignmentRequest,
        options: OptionsT,
        out: Path,
        report: Report = no_report,
    ) -> None:
        """Aligns ``pipe`` and writes a model-state entry with its record ``alignment.json``.

        The pipeline is left aligned; whoever needs the base afterwards loads it again. Bit-equal on
        repetition with the same number of threads. Raises UserError: the method does not know the
        pipeline's denoiser, or the training diverged. Nothing usable is left in ``out`` then.
        """
        import torch

        if self.transformers and not hasattr(pipe, "unet"):
            transformer_family(pipe, self.name)
        else:
            unet_of(pipe, self.name)
        threads = torch.get_num_threads()
        torch.set_num_threads(request.threads)
        try:
            self.run(pipe, request, options, out, report)
        finally:
            torch.set_num_threads(threads)
        record = self.recipe(options) | {
            "concepts": request.concepts,
            "prompts": request.prompts_digest,
            "counts": {"harmful": len(request.harmful), "keep": len(request.keep)},
            "seed": request.seed,
            "threads": request.threads,
            "sampler": request.sampler.model_dump(mode="json"),
        }
        (out / RECORD).write_text(
            json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )


def recorded_method(folder: Path) -> str:
    """Name of the method that wrote a folder. Raises UserError if its record does not say."""
    path = folder / RECORD
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the record of an alignment: {error}") from None
    return str(name)


def unet_of(pipe: DiffusionPipeline, method: str) -> nn.Module:
    """The pipeline's UNet. Raises UserError if its denoiser is of another kind."""
    from torch import nn

    unet = getattr(pipe, "unet", None)
    if not isinstance(unet, nn.Module):
        raise UserError(
            f"method {method!r} needs a pipeline with a UNet (Stable Diffusion 1, 2, XL); "
            f"this one is a {type(pipe).__name__}"
        )
    return unet


def transformer_family(pipe: DiffusionPipeline, method: str) -> TransformerFamily:
    """The family of a pipeline's transformer.

    Raises UserError: it is of none, or of one of another distribution that does not name its parts.
    """
    try:
        family: Any = family_of(pipe)
    except UserError:
        family = None
    if not hasattr(family, "parts"):
        raise UserError(
            f"method {method!r} knows the denoisers of Stable Diffusion 1, 2, XL, 3 and 3.5, Flux "
            f"and PixArt; this pipeline is a {type(pipe).__name__}"
        )
    return cast("TransformerFamily", family)
