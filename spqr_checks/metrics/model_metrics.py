"""Metrics that rest on a model the user names, as ``NAME`` or ``NAME=SOURCE``. Light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, digest, library_version
from spqr_checks.known_good import installed
from spqr_checks.models import sources
from spqr_checks.packages import missing
from spqr_checks.registry import Registry
from spqr_checks.source_code import code_of

COMMON = ("torch", "transformers", "tokenizers", "numpy", "pillow")
RUNS_CLIP = "clip"
"""The metric that works without a source: the run's own CLIP is taken."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a metric is made of besides its code and its model's files.

    Attributes:
        packages: distributions whose versions enter the recipe.
        extra: name of the extra in pyproject that installs what the default installation lacks.
        loads_on_meta: whether its ``load`` can be asked for the device ``meta``: everything is
            loaded and checked but the values of weights, so that no image is drawn in vain.
    """

    packages: tuple[str, ...] = COMMON
    extra: str | None = None
    loads_on_meta: bool = False

    def recipe(self, metric: str, source: str, *makers: Any) -> dict[str, Json]:
        """What determines the metric's value on given images and prompts.

        Args:
            makers: what loads the metric and computes it; see `source_code.code_of`.

        Raises:
            UserError: for a source that is not there, or a package that is not installed.
        """
        if absent := [package for package in self.packages if installed(package) is None]:
            raise missing(metric, *absent, extra=self.extra)
        return {
            "metric": metric,
            "source": sources.source_recipe(source),
            "code": code_of(*makers),
            "versions": {package: library_version(package) for package in self.packages},
        }


class Kind(Protocol):
    """What a registry of such metrics holds.

    Attributes:
        load: (source, device) → model; imports what is heavy. Raises UserError.
    """

    @property
    def load(self) -> Callable[[str, str], Any]: ...
    @property
    def needs(self) -> Needs: ...


K = TypeVar("K", bound=Kind)


class Named(NamedTuple):
    """A metric and where its model comes from."""

    name: str
    source: str


class ModelMetrics(Registry[K]):
    """Metrics of one setting, which is named after the package of ours that defines them."""

    def __init__(self, setting: str, attribute: str, kind: type[K]) -> None:
        package, group = f"{__package__}.{setting}", f"spqr_checks.{setting}"
        super().__init__(
            setting, package, attribute, group, lambda one: isinstance(one, kind), separator="_"
        )
        self.model = lru_cache(maxsize=1)(self._load)

    def named(self, spec: str, clip: str) -> Named:
        """The metric that a setting names; none is imported.

        Args:
            clip: the run's CLIP model, for ``clip`` without a source.

        Raises:
            UserError: for an unknown metric, or one without a source that needs it.
        """
        given, equals, source = (part.strip() for part in spec.partition("="))
        name = given.replace("-", "_")
        self.place(name)
        if name == RUNS_CLIP and not equals:
            if not clip:
                raise UserError(f"{self.what} {spec!r} needs a CLIP model: set --spqr-clip")
            return Named(name, clip)
        if not source:
            raise UserError(
                f"{self.what} {spec!r} names no model; write {given}=PATH or {given}=HUB_ID"
            )
        return Named(name, source)

    def recipe(self, spec: str, clip: str) -> dict[str, Json]:
        """What determines the values on given images and prompts.

        Raises:
            UserError: for an unknown metric, a source that is not there, or a missing package.
        """
        name, source = self.named(spec, clip)
        kind = self.get(name)
        recipe = kind.needs.recipe(f"{self.what} {name}", source, self.package, kind.load)
        return recipe | self.code(name)

    def refuse_unloadable(self, spec: str, clip: str) -> None:
        """Loads the model without its weights' values, if it can be; heavy.

        Raises:
            UserError: as `loaded`, for everything but values.
        """
        name, source = self.named(spec, clip)
        if self.get(name).needs.loads_on_meta:
            self.get(name).load(source, sources.META)

    def loaded(self, spec: str, clip: str, device: str) -> Any:
        """The model; the last one is kept. Raises UserError as `recipe`, and its ``load``."""
        name, source = self.named(spec, clip)
        return self.model(name, source, digest(self.recipe(spec, clip)), device)

    def forget(self) -> None:
        """Drops the model that is kept."""
        self.model.cache_clear()

    def _load(self, name: str, source: str, content: str, device: str) -> Any:
        """``content`` is part of the key only: a changed directory is loaded anew."""
        return self.get(name).load(source, device)
