"""What a metric is made of: packages, code and files. Light."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from typing import Any

from spqr_checks.errors import UserError
from spqr_checks.hashing import Json, library_version
from spqr_checks.models import sources
from spqr_checks.store.recipes import code_of

COMMON = ("torch", "transformers", "tokenizers", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Needs:
    """Of one metric.

    Attributes:
        packages: distributions whose versions enter the recipe.
        extra: name of the extra in pyproject that installs what the default installation lacks.
    """

    packages: tuple[str, ...] = COMMON
    extra: str | None = None

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if not _installed(package)]

    def recipe(self, metric: str, source: str, *makers: Any) -> dict[str, Json]:
        """What determines the metric's value on given images and prompts.

        Args:
            makers: what loads the metric and computes it; see `recipes.code_of`.

        Raises:
            UserError: for a source that is not there, or a package that is not installed.
        """
        if missing := self.missing():
            raise UserError(f"{metric} needs {', '.join(missing)}: {how_to_install(self)}")
        return {
            "metric": metric,
            "source": sources.source_recipe(source),
            "code": code_of(*makers),
            "versions": {package: library_version(package) for package in self.packages},
        }


def how_to_install(needs: Needs) -> str:
    """The command that installs what is missing."""
    if needs.extra is None:
        return f"pip install {' '.join(needs.missing())}"
    return f"pip install 'spqr-checks[{needs.extra}]'"


def _installed(package: str) -> bool:
    try:
        library_version(package)
    except PackageNotFoundError:
        return False
    return True
